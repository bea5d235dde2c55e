from pkgutil import extend_path

# In a checkout this folder is found before the installed package, whose msg/ it must not hide.
__path__ = extend_path(__path__, __name__)
