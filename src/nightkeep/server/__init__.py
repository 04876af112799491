"""The HTTP doors: the gateway's wires, the JSON API and the server under them."""
