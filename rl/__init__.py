"""Reinforcement learning: rewards, advantages, policy losses, rollouts and the learner."""
