"""TradeSense as a person sees it: `uvicorn tradesense.web.app:app`, beside a worker and a gateway.

| file          | what                                                                        |
|---------------|-----------------------------------------------------------------------------|
| `app.py`      | the application: its parts, what it answers when something is refused       |
| `sign_in.py`  | sessions: who is it?                                                        |
| `figures.py`  | what is read: cached views as responses, and what is never cached           |
| `changes.py`  | what is written: trades, imports, settings, each with its event             |
| `measured.py` | how long each answer took, and the same answer without the cache            |
| `static/`     | the page: ES modules as they are, no build step; `vendor/` has the charts   |
"""
