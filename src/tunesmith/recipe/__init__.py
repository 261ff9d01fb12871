"""The recipe: what is read, how it is mixed and held out, how it is trained, and how that is measured."""

from tunesmith.recipe.load import LoadedRecipe, load_recipe, shipped_recipes
from tunesmith.recipe.models import Recipe

__all__ = ["LoadedRecipe", "Recipe", "load_recipe", "shipped_recipes"]
