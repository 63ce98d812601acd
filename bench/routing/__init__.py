"""A simulation of routing: real decisions over providers that drift and fail, against the best that was possible."""
