"""Models: what they take and give, and the local ways to call them."""
