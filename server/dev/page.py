"""The look of the simulators' pages: one card on a quiet ground."""

from __future__ import annotations

import html
from typing import Final

from aiohttp import web

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body {{ font: 17px/1.5 system-ui, sans-serif; margin: 0; background: #eef2f5; color: #17242d }}
  main {{ max-width: 24rem; margin: 12vh auto; padding: 2rem; background: #fff; border-radius: 1rem }}
  h1 {{ font-size: 1rem; font-weight: 600; margin: 0; color: #52646f }}
  .amount {{ font-size: 2.75rem; font-weight: 700; margin: .25rem 0 1rem }}
  .order {{ font: .85rem ui-monospace, monospace; color: #52646f; overflow-wrap: anywhere }}
  button {{ width: 100%; font: inherit; font-weight: 600; padding: .9rem; border: 0; border-radius: .6rem;
           margin-top: .75rem; background: #0b6e4f; color: #fff; cursor: pointer }}
  button.no {{ background: #e3e9ed; color: #17242d }}
  section {{ padding: 1.25rem 0; border-top: 1px solid #e3e9ed }}
  small {{ color: #52646f }}
</style>
<main><h1>{heading}</h1>{body}</main></html>"""


def page(title: str, heading: str, body: str) -> web.Response:
    """A page; `body` is HTML, the others are text."""
    text = _PAGE.format(title=html.escape(title), heading=html.escape(heading), body=body)
    return web.Response(text=text, content_type="text/html")


def order(amount_fen: int, number: str) -> str:
    """HTML of what is to be paid."""
    return f'<div class="amount">¥ {amount_fen / 100:.2f}</div><div class="order">{html.escape(number)}</div>'
