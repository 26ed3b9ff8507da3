"""The edge to the server: connections, clusters, subscriptions, scripts. The only room that knows the driver."""
