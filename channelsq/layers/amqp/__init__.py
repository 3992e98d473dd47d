"""AMQP 0-9-1 as a layer on RabbitMQ uses it: frames, one connection to publish on, and the layer's sender."""
