"""The echo."""

from channelsq.message import Message


def echo(message: Message) -> None:
    """Send back what came, as text or bytes as it was."""
    kind = "text" if message.content.get("text") is not None else "bytes"
    message.reply_channel.send({kind: message[kind]})
