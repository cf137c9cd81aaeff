"""Renderings of the one door for people and programs; no rules of their own."""
