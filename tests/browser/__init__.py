"""The dashboard in a real Chromium: tests, and the screenshots in docs/."""
