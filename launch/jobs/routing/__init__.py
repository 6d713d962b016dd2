"""Routers: outcomes of the routes are measured, a router is fitted and reported."""
