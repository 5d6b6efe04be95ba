"""The long-running service: transport, pipeline, supervision, metrics, web page and the command line."""
