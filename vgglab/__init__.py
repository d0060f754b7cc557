"""vgglab: the module behind a course on VGG, its receptive fields, its cost, its training and its neighbours."""

__version__ = "0.2.0"
