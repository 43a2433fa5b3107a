"""OpenAI's protocol over HTTP: every request becomes a decision of the gateway's run."""
