"""What all providers share: types, the base of the unified clients, errors, retries."""
