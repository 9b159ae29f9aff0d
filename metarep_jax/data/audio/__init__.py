"""Audio: recordings, and what is made of them."""
