"""How messages reach a client: WebSocket and server-sent events."""
