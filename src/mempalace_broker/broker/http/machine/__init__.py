"""What a request over HTTP may do, and the sessions of HTTP clients. Pure."""
