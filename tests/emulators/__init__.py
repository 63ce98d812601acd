"""Emulators of the providers' APIs: real HTTP servers that speak each protocol and misbehave when a prompt says so."""
