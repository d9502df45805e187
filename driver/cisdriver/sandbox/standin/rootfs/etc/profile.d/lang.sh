# /etc/profile.d/lang.sh - set i18n stuff
if [ -z "${LANG-}" ] && [ -r /etc/locale.conf ]; then
    . /etc/locale.conf
    export LANG
fi
