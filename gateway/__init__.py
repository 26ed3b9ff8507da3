"""From the feed to browsers: WebSocket, server-sent events, the live page."""
