"""Installers of services that no plugin of their own brings."""
