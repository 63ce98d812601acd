"""The sandbox: a provider that needs no account, draws placeholder media, and can be told to misbehave."""
