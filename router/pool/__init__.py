"""Pools of workers: queue, dispatcher, replicas, health, discovery, transport."""
