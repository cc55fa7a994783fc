"""The page before the pages: plain HTML, without a script, so that it works where nothing else does."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in · Graft</title><link rel="stylesheet" href="/app/look/graft.css">
</head>
<body class="alone"><main class="card">
<h1>Graft</h1>
<p>Answers from your documents, with sources that were checked.</p>
{refused}
{provider}
<form method="post" action="/auth/key">
<input type="hidden" name="next" value="{next}">
<label for="key">Your key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<p class="hint">Whoever runs this server makes one with <code>graft keys create NAME</code>.</p>
<button type="submit">Sign in</button>
</form>
</main></body></html>
"""


def sign_in_page(*, with_provider: bool, next: str | None, refused: bool = False) -> str:
    """The page.

    Args:
        with_provider: Whether people can sign in through an OpenID provider.
        next: Where they wanted to go.
        refused: Whether a key was tried that does not open.
    """
    there = next if next and next.startswith("/app") else "/app/"
    link = f'<p><a class="button" href="/auth/login?next={quote(there)}">Sign in with your organisation</a></p>'
    told = '<p class="flaw" role="alert">This key is not known here, or is known no longer.</p>' if refused else ""
    provider = link if with_provider else ""
    return _PAGE.format(refused=told, provider=provider, next=escape(there, quote=True))
