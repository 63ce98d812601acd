"""Beside LiteLLM's proxy and Portkey's gateway: one machine, one upstream, one load, taking turns."""
