"""Exports of images: options, plan and run."""
