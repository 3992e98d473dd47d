"""The chat's addresses.  A room's socket has the same address as its page, with ws for http."""

from django.contrib.auth import views as auth
from django.urls import path

from app import views

urlpatterns = [
    path("", views.rooms, name="rooms"),
    path("chat/<slug:slug>/", views.room, name="room"),
    path("chat/<slug:slug>/post/", views.post, name="post"),
    path("files/<int:pk>/", views.file, name="file"),
    path("mentions/", views.mentions, name="mentions"),
    path("accounts/signup/", views.signup, name="signup"),
    path("accounts/login/", views.LoginView.as_view(), name="login"),
    path("accounts/logout/", auth.LogoutView.as_view(), name="logout"),
]
