"""What each provider's emulator must lead to: a profile a provider, found by its module."""
