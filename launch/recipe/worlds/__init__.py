"""The worlds that the recipe runs in; `launch.recipe.world` says what each one gives."""
