"""Serves models by OpenAI's interface: batching, chains kept apart, routes, and a web page.

    batch/          the running batch: who gets a slot, and each response as it comes
    requests.py     what a request may hold, and its schema
    models.py       the models that are offered, and their prompts
    routes.py       the routes of `auto`: one response, a vote, the best of several
    bodies.py       the bodies of the API's answers
    metrics.py      figures for Prometheus
    chat.py         answers chat requests
    completions.py  continues texts
    event_stream.py sends an answer in parts
    rollouts.py     samples with token ids, and takes new weights, for RL in another process
    tokens.py       tokens of a text and back, for clients that count them
    server.py       the web server: keys, limits, streams, errors
    openapi.py      the description of the API

Start it with `python -m launch.run_serve`.
"""
