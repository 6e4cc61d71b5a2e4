package pop3

// phrase is a sentence of ours in every language, in the order of the languages. The same %d and
// %s stand in the same order in all of them; the English one is ASCII (RFC 2277 §4.5).
type phrase [languages]string

var (
	textReady = phrase{"%s POP3 server ready", "%s: POP3-Server bereit", "%s : serveur POP3 prêt",
		"%s: servidor POP3 listo", "%s POP3サーバー準備完了"}
	textNotPOP3 = phrase{"this is a POP3 server", "das ist ein POP3-Server", "ceci est un serveur POP3",
		"esto es un servidor POP3", "これはPOP3サーバーです"}
	textLongLine = phrase{"the line is too long", "die Zeile ist zu lang", "la ligne est trop longue",
		"la línea es demasiado larga", "行が長すぎます"}
	textNUL = phrase{"a command cannot contain NUL", "ein Befehl darf kein NUL enthalten", "une commande ne peut pas contenir NUL",
		"una orden no puede contener NUL", "コマンドにNULは使えません"}
	textUnknown = phrase{"unknown command", "unbekannter Befehl", "commande inconnue",
		"orden desconocida", "不明なコマンドです"}
	textNoArgument = phrase{"%s takes no argument", "%s hat kein Argument", "%s ne prend pas d'argument",
		"%s no lleva argumento", "%sに引数はありません"}
	textTooMany = phrase{"too many errors, closing the connection", "zu viele Fehler, die Verbindung wird beendet",
		"trop d'erreurs, fin de la connexion", "demasiados errores, se cierra la conexión", "エラーが多すぎるため接続を閉じます"}
	textLoginFirst = phrase{"log in first", "erst anmelden", "identifiez-vous d'abord",
		"identifíquese primero", "先にログインしてください"}
	textLoggedIn = phrase{"you are already logged in", "Sie sind schon angemeldet", "vous êtes déjà identifié",
		"ya se ha identificado", "すでにログインしています"}
	textGoodbye = phrase{"goodbye", "auf Wiedersehen", "au revoir", "adiós", "さようなら"}

	textNeedTLS = phrase{"TLS is required to log in: use STLS, or the POP3S port",
		"Anmeldung nur mit TLS: STLS benutzen, oder den POP3S-Port",
		"TLS est exigé pour s'identifier : utilisez STLS ou le port POP3S",
		"se requiere TLS para identificarse: use STLS o el puerto POP3S",
		"ログインにはTLSが必要です。STLSかPOP3Sポートを使ってください"}
	textNoTLS = phrase{"TLS is not available", "TLS ist nicht verfügbar", "TLS n'est pas disponible",
		"TLS no está disponible", "TLSは利用できません"}
	textTLSActive = phrase{"TLS is already active", "TLS ist schon aktiv", "TLS est déjà actif",
		"TLS ya está activo", "TLSはすでに有効です"}
	textSTLSSyntax = phrase{"STLS takes no argument and ends in CRLF", "STLS hat kein Argument und endet mit CRLF",
		"STLS ne prend pas d'argument et finit par CRLF", "STLS no lleva argumento y termina en CRLF",
		"STLSに引数はなく、CRLFで終わります"}
	textSTLSPipelined = phrase{"nothing may follow STLS before TLS has begun", "auf STLS darf nichts folgen, bevor TLS begonnen hat",
		"rien ne peut suivre STLS avant le début de TLS", "nada puede seguir a STLS antes de que empiece TLS",
		"TLS開始前にSTLSの後へ何も送れません"}
	textBeginTLS = phrase{"begin TLS", "TLS beginnen", "commencez TLS", "comience TLS", "TLSを開始してください"}

	textCapabilities = phrase{"these work", "das geht", "voici ce qui fonctionne", "esto funciona", "利用できる機能"}
	textUTF8         = phrase{"UTF-8 it is", "UTF-8 ist an", "UTF-8 activé", "UTF-8 activado", "UTF-8モードです"}
	textLanguages    = phrase{"these languages", "diese Sprachen", "voici les langues", "estos idiomas", "利用できる言語"}
	textLanguage     = phrase{"we speak English now", "wir sprechen jetzt Deutsch", "nous parlons maintenant français",
		"ahora hablamos español", "言語を日本語にしました"}
	textNoLanguage = phrase{"we do not speak that language", "diese Sprache sprechen wir nicht", "nous ne parlons pas cette langue",
		"no hablamos ese idioma", "その言語は利用できません"}
	textLangSyntax = phrase{"LANG takes one language tag such as de, or *", "LANG verlangt ein Sprachkürzel wie de, oder *",
		"LANG prend un code de langue comme de, ou *", "LANG lleva un código de idioma como de, o *",
		"LANGの引数はdeなどの言語タグか*です"}

	textUserSyntax = phrase{"USER needs a name", "USER braucht einen Namen", "USER demande un nom",
		"USER necesita un nombre", "USERには名前が必要です"}
	textPassword = phrase{"now the password", "jetzt das Passwort", "maintenant le mot de passe",
		"ahora la contraseña", "パスワードをどうぞ"}
	textUserFirst = phrase{"USER first", "erst USER", "d'abord USER", "primero USER", "先にUSERを送ってください"}
	textNoAPOP    = phrase{"APOP is not available, as the greeting said; use AUTH or USER",
		"APOP gibt es nicht, die Begrüßung bot es nicht an; AUTH oder USER benutzen",
		"APOP n'est pas disponible, le message d'accueil ne l'offrait pas ; utilisez AUTH ou USER",
		"APOP no está disponible, el saludo no lo ofrecía; use AUTH o USER",
		"APOPは使えません。AUTHかUSERを使ってください"}
	textAPOPSyntax = phrase{"APOP needs a name and 32 digits", "APOP braucht einen Namen und 32 Ziffern",
		"APOP demande un nom et 32 chiffres", "APOP necesita un nombre y 32 cifras", "APOPには名前と32桁が必要です"}
	textMechanisms  = phrase{"these mechanisms", "diese Verfahren", "voici les mécanismes", "estos mecanismos", "利用できる認証方式"}
	textNoMechanism = phrase{"unknown mechanism, these work: %s", "unbekanntes Verfahren, es gibt: %s", "mécanisme inconnu, il y a : %s",
		"mecanismo desconocido, hay: %s", "不明な認証方式です。利用可能: %s"}
	textCancelled = phrase{"cancelled", "abgebrochen", "annulé", "cancelado", "中止しました"}
	textBase64    = phrase{"that is not base 64", "das ist nicht Base64", "ce n'est pas de la base 64",
		"eso no es base 64", "Base64ではありません"}
	textLoginSyntax = phrase{"that is not how this mechanism goes", "so geht dieses Verfahren nicht", "ce mécanisme ne fonctionne pas ainsi",
		"este mecanismo no funciona así", "この認証方式の応答ではありません"}
	textDenied = phrase{"the name or the password is wrong", "Name oder Passwort ist falsch", "le nom ou le mot de passe est faux",
		"el nombre o la contraseña es incorrecto", "名前かパスワードが違います"}
	textCannotCheck = phrase{"the password cannot be checked now, try again later",
		"das Passwort kann gerade nicht geprüft werden, bitte später noch einmal",
		"le mot de passe ne peut pas être vérifié maintenant, réessayez plus tard",
		"la contraseña no se puede comprobar ahora, inténtelo más tarde",
		"現在パスワードを確認できません。後でもう一度お試しください"}
	textInUse = phrase{"the mailbox is open in another session, try again later",
		"das Postfach ist in einer anderen Sitzung offen, bitte später noch einmal",
		"la boîte est ouverte dans une autre session, réessayez plus tard",
		"el buzón está abierto en otra sesión, inténtelo más tarde",
		"メールボックスは別のセッションで使用中です。後でもう一度お試しください"}
	textTooSoon = phrase{"log in again in %d seconds", "in %d Sekunden wieder anmelden", "identifiez-vous de nouveau dans %d secondes",
		"identifíquese de nuevo en %d segundos", "%d秒後にもう一度ログインしてください"}
	textCannotOpen = phrase{"the mailbox cannot be opened now, try again later",
		"das Postfach lässt sich gerade nicht öffnen, bitte später noch einmal",
		"la boîte ne peut pas être ouverte maintenant, réessayez plus tard",
		"el buzón no se puede abrir ahora, inténtelo más tarde",
		"現在メールボックスを開けません。後でもう一度お試しください"}
	textCannotOpenEver = phrase{"the mailbox cannot be opened, please tell the postmaster",
		"das Postfach lässt sich nicht öffnen, bitte dem Postmaster melden",
		"la boîte ne peut pas être ouverte, prévenez le postmaster",
		"el buzón no se puede abrir, avise al postmaster",
		"メールボックスを開けません。管理者に連絡してください"}
	textMailbox = phrase{"%s has %d messages (%d octets)", "%s hat %d Nachrichten (%d Oktette)", "%s a %d messages (%d octets)",
		"%s tiene %d mensajes (%d octetos)", "%s のメッセージは%d通 (%dオクテット)"}

	textList = phrase{"%d messages (%d octets)", "%d Nachrichten (%d Oktette)", "%d messages (%d octets)",
		"%d mensajes (%d octetos)", "%d通 (%dオクテット)"}
	textNeedNumber = phrase{"a message number is needed", "eine Nachrichtennummer fehlt", "il faut un numéro de message",
		"hace falta un número de mensaje", "メッセージ番号が必要です"}
	textNoMessage = phrase{"no such message, there are %d", "keine solche Nachricht, es gibt %d", "pas de tel message, il y en a %d",
		"no hay tal mensaje, hay %d", "そのメッセージはありません。全%d通です"}
	textDeletedAlready = phrase{"message %d is already deleted", "Nachricht %d ist schon gelöscht", "le message %d est déjà effacé",
		"el mensaje %d ya está borrado", "メッセージ%dはすでに削除されています"}
	textTopSyntax = phrase{"TOP needs a message number and a number of lines", "TOP braucht eine Nachrichtennummer und eine Zeilenzahl",
		"TOP demande un numéro de message et un nombre de lignes", "TOP necesita un número de mensaje y un número de líneas",
		"TOPにはメッセージ番号と行数が必要です"}
	textOctets = phrase{"%d octets", "%d Oktette", "%d octets", "%d octetos", "%dオクテット"}
	textTop    = phrase{"the header and the first lines follow", "Kopf und erste Zeilen folgen", "voici l'en-tête et les premières lignes",
		"siguen la cabecera y las primeras líneas", "ヘッダーと最初の行を送ります"}
	textGone = phrase{"message %d has been removed by another program", "Nachricht %d wurde von einem anderen Programm entfernt",
		"le message %d a été retiré par un autre programme", "otro programa ha quitado el mensaje %d",
		"メッセージ%dは別のプログラムに削除されました"}
	textUnreadable = phrase{"message %d cannot be read now", "Nachricht %d ist gerade nicht lesbar", "le message %d ne peut pas être lu maintenant",
		"el mensaje %d no se puede leer ahora", "現在メッセージ%dを読めません"}
	textUnreadableEver = phrase{"message %d cannot be read, please tell the postmaster", "Nachricht %d ist nicht lesbar, bitte dem Postmaster melden",
		"le message %d ne peut pas être lu, prévenez le postmaster", "el mensaje %d no se puede leer, avise al postmaster",
		"メッセージ%dを読めません。管理者に連絡してください"}
	textDeleted = phrase{"message %d deleted", "Nachricht %d gelöscht", "message %d effacé",
		"mensaje %d borrado", "メッセージ%dを削除しました"}
	textNoop     = phrase{"still here", "noch da", "toujours là", "aquí sigo", "はい、どうぞ"}
	textRestored = phrase{"%d messages restored, there are %d (%d octets)", "%d Nachrichten wiederhergestellt, es gibt %d (%d Oktette)",
		"%d messages rétablis, il y en a %d (%d octets)", "%d mensajes recuperados, hay %d (%d octetos)",
		"%d通を元に戻しました。全%d通 (%dオクテット)"}
	textRemoved = phrase{"goodbye, %d messages removed", "auf Wiedersehen, %d Nachrichten entfernt", "au revoir, %d messages retirés",
		"adiós, %d mensajes quitados", "さようなら。%d通を削除しました"}
	textNotRemoved = phrase{"%d of %d deleted messages could not be removed:%s", "%d von %d gelöschten Nachrichten ließen sich nicht entfernen:%s",
		"sur les messages effacés, %d de %d n'ont pas pu être retirés :%s", "no se pudieron quitar %d de %d mensajes borrados:%s",
		"%d通 (全%d通中) を削除できませんでした:%s"}

	textTooManyConnections = phrase{"too many connections, try again later", "zu viele Verbindungen, bitte später noch einmal",
		"trop de connexions, réessayez plus tard", "demasiadas conexiones, inténtelo más tarde", "接続が多すぎます。後でもう一度お試しください"}
	textTooManyFromYou = phrase{"too many connections from your address, try again later",
		"zu viele Verbindungen von Ihrer Adresse, bitte später noch einmal",
		"trop de connexions depuis votre adresse, réessayez plus tard",
		"demasiadas conexiones desde su dirección, inténtelo más tarde",
		"同じアドレスからの接続が多すぎます。後でもう一度お試しください"}
	textStopping = phrase{"shutting down, try again later", "der Server wird beendet, bitte später noch einmal",
		"arrêt en cours, réessayez plus tard", "el servidor se detiene, inténtelo más tarde", "サーバーを停止中です。後でもう一度お試しください"}
)
