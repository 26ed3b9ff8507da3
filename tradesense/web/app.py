"""The application. Settings: `REDIS_URL`, `DATABASE_URL`, and `GATEWAY_URL`, where browsers find the gateway."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from cachebus.integrations.asgi import RateLimitMiddleware, SessionMiddleware
from cachebus.integrations.fastapi import lifespan
from tradesense.queries import NotFound
from tradesense.views import cache
from tradesense.web import changes, figures, sign_in
from tradesense.web.measured import ServerTiming

STATIC = Path(str(files("tradesense.web") / "static"))

app = FastAPI(
    title="TradeSense",
    lifespan=lifespan(cache, changes.bus),
    middleware=[
        Middleware(ServerTiming),
        Middleware(RateLimitMiddleware, limiter=sign_in.limiter, rules=[sign_in.LOGINS]),
        Middleware(SessionMiddleware, store=sign_in.sessions, cookie=sign_in.COOKIE),
    ],
)
for part in (sign_in.router, figures.router, changes.router):
    app.include_router(part)
app.mount("/static", StaticFiles(directory=STATIC), name="static")


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Show the page; it asks who is signed in. It runs our scripts and the gateway's, and no others."""
    gateway = figures.gateway_url().rstrip("/")
    policy = {
        "default-src": "'self'",
        "script-src": f"'self' {gateway}/",
        "connect-src": f"'self' {gateway}/ {gateway.replace('http', 'ws', 1)}/",
        "style-src": "'self' 'unsafe-inline'",  # the charts size themselves
        "img-src": "'self' data:",
        "frame-ancestors": "'self'",
    }
    said = "; ".join(f"{what} {where}" for what, where in policy.items())
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache", "Content-Security-Policy": said})


@app.exception_handler(NotFound)
async def not_found(_: Request, missing: Exception) -> JSONResponse:
    """There is no such user or symbol."""
    return JSONResponse({"detail": str(missing)}, 404)


@app.exception_handler(RequestValidationError)
async def malformed(_: Request, wrong: RequestValidationError) -> JSONResponse:
    """A field is missing, or of another type."""
    first = wrong.errors()[0]
    return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 422)
