"""An MQTT gateway: ``mqtt.receive`` for what comes, ``mqtt.publish`` for what goes; needs the package aiomqtt."""

import asyncio
import logging
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiomqtt

from channelsq.interface.gateway import OPTIONS, Gateway, GatewayConfig, Option, Rejected, TryLater, run_gateway

logger = logging.getLogger("channelsq.interface.mqtt")


@dataclass(frozen=True, slots=True)
class MqttConfig(GatewayConfig):
    """The settings: those of every gateway, and these."""

    broker: str = "mqtt://127.0.0.1:1883"
    topics: str = "#"
    client_id: str = "channelsq"


class MqttGateway(Gateway):
    """Subscribes to topics, and publishes messages of the application."""

    protocol = "mqtt"
    consumes = ("mqtt.publish",)
    may_repeat = True  # MQTT's own quality of service 1 repeats, too
    config_class = MqttConfig
    options = (
        *OPTIONS,
        Option("broker", str, "the MQTT broker", "URL"),
        Option("topics", str, "the topics to subscribe to, divided by commas", "TOPICS"),
        Option("client_id", str, "the name of the session that the broker keeps for this gateway", "NAME"),
    )

    async def open(self):
        """Connect in the background."""
        self.client = None  # None while the broker is away
        self.listening = asyncio.create_task(self.listen())

    async def close(self):
        """Take no more messages; the broker keeps them."""
        self.listening.cancel()
        await asyncio.wait([self.listening])

    def problem(self):
        """Return why ``health/ready`` says no."""
        return "" if self.client else "the MQTT broker cannot be reached"

    async def listen(self):
        """Hand messages to the application; connect again when the connection is lost."""
        url = urlsplit(self.config.broker)
        while True:
            try:
                async with aiomqtt.Client(
                    url.hostname, url.port or 1883, username=url.username, password=url.password,
                    identifier=self.config.client_id, clean_session=False, max_queued_incoming_messages=100,
                ) as client:  # fmt: skip
                    for topic in self.config.topics.split(","):
                        await client.subscribe(topic, qos=1)
                    self.client = client
                    async for message in client.messages:
                        await self.take(message)
            except aiomqtt.MqttError as error:
                self.stats.count("gateway.connections_lost")
                logger.warning("the MQTT broker is away: %s", error)
            finally:
                self.client = None
            await asyncio.sleep(1)

    async def take(self, message):
        """Publish a message; wait while its channel is full."""
        content = {"topic": str(message.topic), "payload": bytes(message.payload), "retained": message.retain}
        while True:
            try:
                return await self.publish("mqtt.receive", content)
            except TryLater as error:
                await asyncio.sleep(min(error.after or 1, 1))
            except Rejected:  # too large for the layer
                return None

    async def carry(self, channel, content):
        """Publish a message of the application."""
        topic, payload = content.get("topic"), content.get("payload", b"")
        if not isinstance(topic, str) or not topic or "#" in topic or "+" in topic:
            raise Rejected(f'"topic" must name one topic, not {topic!r}')
        if self.client is None:
            raise TryLater("the MQTT broker is away")
        try:
            await self.client.publish(topic, payload, qos=1, retain=bool(content.get("retain")))
        except aiomqtt.MqttError as error:
            raise TryLater(str(error)) from error


if __name__ == "__main__":
    raise SystemExit(run_gateway(MqttGateway))
