"""Fashion-MNIST, the drawn garments, folders of photographs, and batches of any of them."""

from vgglab.data.fashion_mnist import drawn_garments as drawn_garments
from vgglab.data.fashion_mnist import load as load
from vgglab.data.images import AUGMENTATIONS as AUGMENTATIONS
from vgglab.data.images import CLASSES as CLASSES
from vgglab.data.images import MEAN as MEAN
from vgglab.data.images import Images as Images
from vgglab.data.images import Splits as Splits
from vgglab.data.images import batches as batches
from vgglab.data.images import canvas as canvas
from vgglab.data.images import derived_seed as derived_seed
from vgglab.data.images import normalize as normalize
from vgglab.data.images import random_flip as random_flip
from vgglab.data.images import random_shift as random_shift
from vgglab.data.images import resize as resize
