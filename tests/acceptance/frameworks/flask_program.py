"""A Flask program, as gunicorn runs it: `gunicorn --workers 2 --threads 16 --preload flask_program:app`.

It uses the cache before gunicorn forks, so each worker begins with connections that are not its own.
"""

from __future__ import annotations

from counted import answer, change
from flask import Flask, Response, jsonify

app = Flask(__name__)
answer(1)


@app.get("/figures/<int:user_id>")
def read(user_id: int) -> Response:
    """Return a figure."""
    return jsonify(answer(user_id))


@app.post("/figures/<int:user_id>/<int:value>")
def write(user_id: int, value: int) -> Response:
    """Change a figure."""
    change(user_id, value)
    return jsonify(answer(user_id))
