# names.sh COMMAND…: runs it where the names of the public cloud lead to the emulator; in a mount
# namespace, so for it and its children only.
mount --bind "$AKV_EMULATOR_HOSTS" /etc/hosts
exec "$@"
