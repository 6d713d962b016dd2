"""Serves models by OpenAI's interface: batching, chains kept apart, routes, and a web page.

    engine.py       the schedule of the compiled sampler: who gets a slot, and when
    text.py         tokens to text, stop strings
    response.py     one response as it comes: chain, answer, the budget of the chain
    requests.py     what a request may hold, and its schema
    models.py       the models that are offered, and their prompts
    routes.py       the routes of `auto`: one response, a vote, the best of several
    bodies.py       the bodies of the API's answers
    metrics.py      figures for Prometheus
    chat.py         answers chat requests
    completions.py  continues texts
    tokens.py       tokens of a text and back, for clients that count them
    server.py       the web server: keys, limits, streams, errors
    openapi.py      the description of the API

Start it with `python -m launch.run_serve`.
"""
