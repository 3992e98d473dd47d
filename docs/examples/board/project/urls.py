from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

from board import views

urlpatterns = [
    path("", views.boards, name="boards"),
    path("boards/<slug:slug>/", views.board, name="board"),
    path("login/", LoginView.as_view(template_name="board/login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    *staticfiles_urlpatterns(),
]
