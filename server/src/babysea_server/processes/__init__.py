"""The processes a deployment is made of: api, worker, and `up`, which runs both on one machine."""
