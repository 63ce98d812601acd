"""The imaginary provider Acme for babysea-server."""
