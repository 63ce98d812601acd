"""Telling customers what became of their generations: endpoints, the outbox, signed deliveries."""
