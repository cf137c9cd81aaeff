"""What operators type in a week to look at things is recognised as reading, so that it runs at once."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from interlock.commands.library import Library, load_library
from interlock.commands.model import Operation

SHARE_MIN = 0.95
SECOND_WEEK = Path(__file__).parents[1] / "everyday" / "second_week.txt"
"""What a second list, written without looking at the first, found to be read at once or made so."""

EVERYDAY = r"""
ls
ls -lah
ls -ltr /var/log
ls -la --time-style=long-iso /srv/app
ls -lhS /var/log
ls -1 /etc/nginx/sites-enabled
ls -ld /srv/app
ls -R /srv/app
ls -i /srv
cat /etc/os-release
cat /proc/meminfo
cat /proc/loadavg
cat /proc/cpuinfo
cat /etc/hosts
cat /etc/resolv.conf
cat -n /srv/app/config.yaml
cat /var/log/app.log /var/log/app.log.1
head -20 /var/log/syslog
head -n 50 /var/log/nginx/access.log
head -c 200 /srv/app/data.bin
tail -n 100 /var/log/syslog
tail -100 /var/log/syslog
tail -f /var/log/nginx/error.log
tail -n 0 -f /var/log/app.log
tail -F /var/log/app.log
tail -n +10 /srv/app/x.csv
tail -5f /var/log/app.log
grep -rn "error" /var/log/app
grep -iE "a|b" -A3 -B2 /var/log/app.log
grep -c 500 /var/log/nginx/access.log
grep -v '^#' /etc/ssh/sshd_config
grep -w -i timeout /srv/app/app.conf
grep -l TODO /srv/app/a.py /srv/app/b.py
grep -rl --include='*.conf' upstream /etc/nginx
grep -Po 'id=\K\d+' /var/log/app.log
grep -F '[error]' /var/log/nginx/error.log
grep --color=never -m 5 foo /var/log/app.log
egrep 'warn|fail' /var/log/syslog
zgrep -i oom /var/log/syslog.2.gz
zcat /var/log/syslog.2.gz
wc -l /var/log/syslog
sort -k2 -n /srv/app/x.txt
sort -rn /srv/app/sizes.txt
uniq -c /srv/app/sorted.txt
cut -d: -f1 /etc/passwd
cut -d' ' -f1 /var/log/nginx/access.log
diff -u /srv/app/a.conf /srv/app/b.conf
diff -rq /srv/app/v1 /srv/app/v2
cmp /srv/a /srv/b
stat /srv/app/config.yaml
stat -c '%a %U:%G %n' /srv/app/config.yaml
file /srv/app/upload.bin
find /var/log -name "*.log" -mtime -1 -size +100M
find /srv/app -type f -newermt '2026-01-01'
find . -maxdepth 1 -type d
find /var/log -type f -mmin -60 -ls
find /srv -perm -o+w -type f
find /srv/app -name '*.py' -not -path '*/venv/*'
find /tmp/work -empty -type f -print0
du -sh /var/log
du -h --max-depth=1 /var/log
du -shx /srv
du -ah /srv/app -d 1
df
df -h
df -hT
df -i
df -h /srv
df -h --total
df -x tmpfs -x devtmpfs -h
tree -L 2 /srv/app
md5sum /srv/app/x.tar.gz
sha256sum /srv/app/x.tar.gz
readlink -f /srv/app/current
realpath /srv/app/current
tar -tzf /srv/backup/a.tgz
tar tvf /srv/backup/a.tar
unzip -l /srv/app/a.zip
jq .version /srv/app/package.json
jq -r '.items[].name' /srv/app/x.json
hexdump -C /srv/app/x.bin
xxd -l 64 /srv/app/x.bin
strings /srv/app/x.bin
column -t -s, /srv/app/x.csv
nl /srv/app/x.py
which nginx
whereis nginx
date
date -u +%F
date -d '2 days ago' +%Y-%m-%d
date +%s
cal
echo hello
pwd
whoami
id
id www-data
groups deploy
who
who -a
w
users
last -n 20
last reboot
lastlog -u root
uptime
uptime -p
uname -a
uname -r
hostname
hostname -I
hostname -f
hostnamectl
timedatectl
timedatectl status
locale
arch
nproc
lscpu
lsblk
lsblk -f
lsblk -o NAME,SIZE,FSTYPE,MOUNTPOINT
blkid
lsmod
lspci
lsusb
lspci -nnk
mount
findmnt
findmnt /srv
free -m
free -h
free -h -s 1 -c 3
vmstat 1 5
vmstat -s
iostat -x 1 3
iostat
mpstat -P ALL 1 1
pidstat 1 3
sar -u 1 3
sar -n DEV 1 1
top -bn1
top
top -b -n 1 -o %MEM
top -H -b -n1 -p 123
ps aux
ps auxf
ps -ef
ps -ef --sort=-%mem
ps aux --sort=-%cpu
ps -eo pid,ppid,cmd,%mem,%cpu --sort=-%mem
ps -p 1234 -o pid,etime,cmd
ps -fu www-data
ps -C nginx -o pid,rss,vsz
ps axjf
ps -T -p 123
ps -o pid,stat,wchan -p 123
pgrep -a nginx
pgrep -fl gunicorn
pidof nginx
pstree -p
pmap -x 123
lsof -i :80
lsof -p 123
lsof -i -P -n
lsof -nP -iTCP -sTCP:LISTEN
lsof -u www-data
lsof +D /var/log/app
fuser -v 80/tcp
swapon --show
smartctl -H /dev/sda
sensors
dmesg -T
dmesg -T --level=err,warn
dmesg -w
sysctl -a
sysctl vm.swappiness
sysctl -n net.core.somaxconn
ipcs
getent passwd deploy
getent hosts example.com
ip a
ip addr
ip -br a
ip -4 addr show eth0
ip addr show dev eth0
ip r
ip route
ip route get 8.8.8.8
ip -s link show eth0
ip link
ip neigh
ss -tulpn
ss -s
ss -tan
ss -ltn sport = :443
ss -tnp state established
ss -o state established '( dport = :ssh or sport = :ssh )'
netstat -tulpn
netstat -an
netstat -rn
ifconfig
ifconfig eth0
route -n
arp -a
ping -c 4 8.8.8.8
ping example.com
ping -c 3 -W 1 db1.internal
traceroute example.com
tracepath example.com
mtr -rwc 10 example.com
dig example.com
dig +short example.com A @1.1.1.1
dig -x 8.8.8.8 +short
dig example.com MX +noall +answer
host example.com
nslookup example.com
nslookup -type=mx example.com
whois example.com
resolvectl status
resolvectl query example.com
ethtool eth0
curl -sS -I http://localhost:8080/health
curl -s localhost:9200/_cluster/health?pretty
curl -fsS --max-time 5 http://127.0.0.1:8000/healthz
curl -s -o /dev/null -w '%{http_code}' http://localhost/
nft list ruleset
iptables -L -n -v
iptables -t nat -L -n
iptables -S
ufw status verbose
openssl x509 -in /etc/ssl/certs/site.crt -noout -dates
openssl version
systemctl status nginx
systemctl status
systemctl is-active nginx
systemctl is-enabled nginx
systemctl list-units --failed
systemctl list-units --type=service --state=running
systemctl list-timers --all
systemctl list-unit-files --type=service
systemctl --failed
systemctl show nginx -p MainPID
systemctl cat nginx
systemctl list-dependencies nginx
systemctl is-system-running
service nginx status
journalctl -xe
journalctl -u nginx -n 100
journalctl -u nginx --since "1 hour ago" --no-pager -n 200 -o short-iso -p err -xe
journalctl -u nginx --since today
journalctl -u nginx -f
journalctl -k -b
journalctl -b -1 -p err
journalctl --since "2026-01-01 10:00" --until "2026-01-01 11:00"
journalctl --disk-usage
journalctl -p 3 -xb
journalctl -t sshd -n 20
journalctl _PID=1234
systemd-analyze blame
systemd-cgtop -b -n 1
loginctl list-sessions
docker ps
docker ps -a
docker ps -a --format "table {{.Names}}\t{{.Status}}"
docker ps -q
docker ps --filter status=exited
docker logs --tail 100 --since 10m web
docker logs -f web
docker logs web
docker inspect -f '{{.State.Status}}' web
docker inspect --format '{{json .NetworkSettings.Networks}}' web
docker images
docker stats --no-stream
docker stats
docker top web
docker port web
docker version
docker info
docker system df
docker network ls
docker network inspect bridge
docker volume ls
docker events --since 10m --until 0m
docker history nginx:1.25
docker compose ps
docker compose -f /srv/app/compose.yml logs --tail=50 web
docker compose logs -f web
docker compose images
docker compose top
docker compose ls
docker-compose ps
docker-compose logs --tail 20 web
kubectl get pods
kubectl get pods -A -o wide
kubectl get pods -n prod -l app=web
kubectl get po,svc,deploy -n prod
kubectl get nodes
kubectl get events --sort-by=.lastTimestamp
kubectl get deploy web -o yaml
kubectl get ingress -A
kubectl get pvc -n prod
kubectl get pods --field-selector=status.phase!=Running -A
kubectl describe pod web-abc -n prod
kubectl describe node n1
kubectl -n prod logs deploy/web --tail=100 -c app --previous
kubectl logs web-abc -f
kubectl logs -l app=web --tail=20 -n prod
kubectl top pods
kubectl top nodes
kubectl rollout status deployment/web
kubectl rollout history deployment/web
kubectl config current-context
kubectl config get-contexts
kubectl cluster-info
kubectl api-resources
kubectl explain pod.spec
kubectl version --client
kubectl get cm app-config -o yaml
kubectl get ns
kubectl auth can-i list pods
helm list -A
helm status web -n prod
helm history web
nginx -t
nginx -v
nginx -T
apachectl configtest
pg_isready
pg_isready -h localhost -p 5432
redis-cli ping
redis-cli info memory
mysqladmin status
rabbitmqctl list_queues
crontab -l
crontab -l -u www-data
apt list --upgradable
apt-cache policy nginx
apt show nginx
dpkg -l
dpkg -l nginx
dpkg -L nginx
dpkg -S /usr/sbin/nginx
rpm -qa
rpm -qi nginx
dnf list installed
pip list
pip show requests
snap list
certbot certificates
supervisorctl status
python3 --version
node -v
java -version
bash --version
git --version
psql --version
npm -v
zpool status
lvs
vgs
pvs
mdadm --detail /dev/md0
chronyc tracking
fail2ban-client status sshd
git status
git log --oneline -10
git diff HEAD~1 --stat
git branch -a
git show HEAD
git rev-parse HEAD
git shortlog -sn
git grep -n TODO
rg -n error /var/log/app
rg -g '*.conf' listen /etc/nginx
fd conf /etc/nginx
fdfind -e log . /var/log/app
bat /srv/app/app.conf
batcat -p /srv/app/app.conf
zipinfo /srv/app/a.zip
yq . /srv/app/config.yaml
lsof +L1
sshd -t
curl -sI https://example.com/
curl -v http://localhost:8080/health
wget -qO- http://localhost:8080/health
wget --spider http://localhost:8080/health
test -f /srv/app/maintenance
basename /srv/app/x.tar.gz
sleep 1
"""


@pytest.fixture(scope="module")
def library() -> Library:
    return load_library()


def lines() -> list[str]:
    return [line for line in EVERYDAY.splitlines() if line.strip()]


def test_at_least_ninety_five_percent_of_everyday_reads_are_recognised(library: Library) -> None:
    """A read is a known form that changes nothing and discloses no secret."""
    asked = lines()
    missed = [
        f"{line}: {answer.why if not isinstance(answer, Operation) else answer.form}"
        for line in asked
        if not isinstance(answer := library.match(shlex.split(line)), Operation) or not answer.only_reads
    ]
    assert len(asked) >= 250
    assert len(missed) <= len(asked) * (1 - SHARE_MIN), "\n".join(missed)


def test_what_was_once_recognised_stays_so(library: Library) -> None:
    missed = [
        line
        for line in SECOND_WEEK.read_text(encoding="utf-8").splitlines()
        if not isinstance(answer := library.match(shlex.split(line)), Operation) or not answer.only_reads
    ]
    assert missed == []


@pytest.mark.parametrize(
    "line",
    [
        "docker inspect web",
        "redis-cli --scan",
        "git fetch --dry-run",
        "git config --list",
        "find /srv/app -size +10M -exec ls -lh {} +",
        "find -L /srv/app",
        "sha256sum -c /srv/app/SHA256SUMS",
        "caddy validate --config /etc/caddy/Caddyfile",
        "postfix check",
        "visudo -cf /etc/sudoers.d/ops",
        "journalctl -D /var/log/journal",
        "openssl rsa -in a.pem -noout -text",
        "openssl x509 -in a.key -noout -text",
        "openssl verify /etc/ssl/private/a.pem",
    ],
)
def test_what_looks_like_a_look_and_is_more_asks_first(library: Library, line: str) -> None:
    """It tells secrets, writes, or reads what nobody named."""
    answer = library.match(shlex.split(line))
    assert not (isinstance(answer, Operation) and answer.only_reads)


def test_what_runs_until_it_is_stopped_is_bounded(library: Library) -> None:
    """Following ends with its time-out, and that is its normal end."""
    for line in ("tail -f /var/log/syslog", "journalctl -fu nginx", "docker logs -f web", "kubectl get pods -w"):
        answer = library.match(shlex.split(line))
        assert isinstance(answer, Operation), line
        assert answer.ends_by_timeout, line
        assert answer.timeout_seconds <= 60, line


def test_what_would_ask_or_draw_gets_the_arguments_that_keep_it_quiet(library: Library) -> None:
    """The argv of the answer is what is executed."""
    expected = {
        "top": ("top", "-b", "-n", "1"),
        "ping db1": ("ping", "-c", "4", "db1"),
        "docker stats": ("docker", "stats", "--no-stream"),
        "systemctl status nginx": ("systemctl", "--no-pager", "status", "nginx"),
        "journalctl -xe": ("journalctl", "--no-pager", "-xe"),
        "diff a b": ("diff", "--no-dereference", "a", "b"),
        "tar -tf a.tar": ("tar", "--force-local", "-tf", "a.tar"),
    }
    for line, argv in expected.items():
        answer = library.match(shlex.split(line))
        assert isinstance(answer, Operation), line
        assert answer.argv == argv
