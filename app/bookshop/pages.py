"""The bookshop's pages: books at the first page, subscriptions behind the links of its mails."""

from __future__ import annotations

from flask import Blueprint

from app.bookshop import book_pages, subscription_pages

bp = Blueprint("bookshop", __name__, template_folder="templates")
bp.register_blueprint(book_pages.bp)
bp.register_blueprint(subscription_pages.bp)
menu = "Books"
