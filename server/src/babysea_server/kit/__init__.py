"""Small parts without opinions about the product: ids, clock, JSON, money, batching, calls."""
