"""AMQP 0-9-1 for a layer on RabbitMQ: frames, one publishing connection, the layer's sender and source."""
