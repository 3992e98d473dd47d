"""There are no pages."""

urlpatterns: list[object] = []
