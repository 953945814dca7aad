"""The web door: ``gunicorn wsgi:app``. Everything it does is in ``pushserver.web.app``."""

from gevent import monkey

monkey.patch_all()

from pushserver.web.app import create_app_from_environment

app = create_app_from_environment()
