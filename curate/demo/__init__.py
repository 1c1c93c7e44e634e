"""The demo: two corpora, planted trouble, and a real HTTP server on hundreds of loopback addresses that serves them."""
