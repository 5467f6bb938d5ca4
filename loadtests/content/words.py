# ruff: noqa: RUF001
"""Common words of each language, and how it marks its sentences: what texts are made of."""

from typing import NamedTuple


class Words(NamedTuple):
    """`space` stands between words, `comma` and `ends` at the end of some, `capitals` begin a sentence.

    `pairs`: a word is many tokens, so what tells texts apart is made of the first two letters of words.
    """

    words: tuple[str, ...]
    space: str = " "
    comma: str = ","
    ends: tuple[str, ...] = (".", ".", ".", "?")
    capitals: bool = False
    pairs: bool = False


_EN = """
about above across after again against almost along always among animal answer around because become before
behind below between blood bread bridge bring brother build careful carry castle caught children church city
clean clear clock cloud coffee cold colour country dark daughter deep dinner dream drive early earth eight
engine enough evening every family farmer father field finger finished flower follow forest friend garden
glass great green ground happy harbour heavy history horse house hundred island keep kitchen knowledge large
later laugh learn letter light little market meadow mountain music narrow neighbour never night north often
open paper people picture quiet railway reason river school season seven shadow silver simple sister slowly
something south street strong summer table teacher thousand together tomorrow travel valley village water
weather window winter without world write yellow young the and of with from which
"""
_DE = """
Abend aber alle Antwort Arbeit auch Auge Bahnhof Baum beginnen beide Berg Bild bleiben Brief Brücke Buch Dach
damit Dorf dunkel durch einfach Eltern endlich Erde erst Fenster Feuer finden Fluss Frage Frau Freund früh
Frühling Garten gehen Geld genau Geschichte gestern gleich Glück groß grün gut Hafen halb Haus Herbst heute
Himmel hoch Hunger immer jeder Jahr jetzt Junge kalt Kind Kirche klein kommen können Kopf Küche lange langsam
laut Leben lernen letzte Licht Liebe Mädchen manchmal Markt Mensch Morgen müde Mutter Nachbar Nacht neben neu
nicht nichts oben oder Pferd plötzlich ruhig Sache schlafen schnell schon Schnee schön Schule schwarz See
sehen Sommer sondern Sonne Sprache Stadt Straße Stunde suchen Tag Tisch Tür über Vater viel Vogel vor Wald
warten Wasser weil weiß wenig Wetter wieder Winter Woche Wort Zeit zurück zwischen
"""
_FR = """
abord acheter afin ailleurs ainsi ami ancien année appeler apporter après argent arriver assez attendre aucun
aujourd'hui auprès aussi automne autour avant avec avenir beaucoup beau besoin bientôt blanc bois bonheur
bouche boulanger bras bruit campagne chaise chambre chaque chaud chemin cheval chien ciel cinq clé cœur comme
connaître corps couleur courir cuisine dehors déjà demain depuis dernier derrière deuxième devant donc donner
eau école écouter église encore enfant ensemble ensuite entre épaule été étoile facile faim femme fenêtre
feuille fille fleuve forêt frère froid gâteau grand heure heureux hier hiver homme jamais jardin jeune jour
lettre leur lire livre loin longtemps lumière lundi maintenant maison malgré marché matin même mère métier
midi monde montagne mot neige nuit nouveau oiseau ouvrir parce parfois père peut-être pluie pomme pont poser
pourquoi quand quelque rue semaine souvent soleil toujours travail vent ville voisin voyage
"""
_ES = """
abrir abuela además ahora aire alegría algo allí almuerzo alto amigo amarillo anoche antiguo aprender aquí
árbol así aunque ayer azúcar barco bajo bastante biblioteca blanco bosque buscar caballo cabeza calle camino
campesino canción carretera ciudad cocina comenzar corazón correr cosecha cuando cuatro cuento cuerpo decir
desde despacio después detrás dinero dirección dulce durante ejemplo encima encontrar enero enfermo entonces
escribir escuela espejo estrella fácil feliz fiesta flores fuego fuerte gato gracias hacia hasta hermana
hermoso hielo hierro hijo hombre hoy huevo iglesia invierno izquierda jardín joven juego jueves junto lejos
lengua lluvia luego lugar llave llegar madera mañana mejor mesa miedo mientras mujer mucho muy nadie niño
noche nuestro nunca nieve ojo otoño oveja pájaro palabra pequeño perro piedra plaza pueblo puerta queso quizá
río rojo sábado siempre silla sueño tarde también todavía trabajo tranquilo verano viaje viejo viento
"""
_PT = """
abelha acabar achar acordar ainda além alguém aldeia almoço amanhã amarelo amigo andar antigo aonde aprender
aquilo areia árvore assim avó azul baixo barulho bastante bem bolo bonito braço cabeça cachorro cadeira cair
caminho canção capaz cedo chegar cheio chover chuva cidade coisa começar comer conhecer coração correio
cozinha criança dentro depois depressa devagar dinheiro direita doce doença domingo então ensinar enquanto
entender escola esquecer esquerda estação estrada faca falar farinha fazer feira feliz ferro ficar filho
floresta fogo folha força galinha ganhar gelo gente gostar hoje homem igreja inverno irmão janela jantar
jardim jogo jovem lado lago leite lembrar leve limpo livro longe lua lugar lutar maçã madeira mãe maior manhã
melhor mês mulher mundo muito não navio neve ninguém noite nosso nuvem olhar ontem ouvir ovelha pão pássaro
pequeno perto pessoa ponte porque praia primeiro professor quente rapaz rua sábado saudade sempre sonho tarde
também verão
"""
_RU = """
август автобус бабушка белый берег быстро важный вдруг весна ветер вечер взгляд вместе вода возле вокруг
воскресенье вопрос воздух восток впереди время всегда вчера газета глаза глубокий говорить голова голос город
гость давно дверь девочка день дерево деревня десять длинный дождь долго дом дорога другой думать если ещё
жизнь завод завтра закон зелёный земля зима золото играть иногда история каждый камень картина книга когда
комната конец корабль короткий который красный круг кухня лампа легко лес лестница лето лицо любить маленький
между место месяц молодой молоко море мост музыка надежда народ наука небо неделя никогда новый ночь облако
огонь озеро окно осень остров ответ отец очень первый перед письмо погода поле понимать потом поэтому правда
птица работа река ребёнок рядом свет север сердце сестра снег солнце старый стол страна теперь тихо улица утро
хлеб холодный хорошо цветок человек через школа язык яблоко
"""
_EL = """
αγάπη αγορά αδελφός αέρας αλήθεια αλλά άλλος αμέσως άνεμος άνθρωπος άνοιξη απάντηση αργά άρρωστος αρχή αστέρι
αύριο αυτός βαθύς βαρύς βιβλίο βουνό βράδυ βροχή γάλα γάτα γείτονας γέφυρα γιατί γλώσσα γράμμα γρήγορα γυναίκα
δάσος δάσκαλος δέκα δέντρο δουλειά δρόμος δύναμη δύσκολος εδώ εικόνα ειρήνη εκεί εκκλησία ελιά ένας επειδή
εποχή εύκολος ευτυχία ζεστός ζωή ήλιος ημέρα ήσυχα θάλασσα θέση ιστορία καιρός καλοκαίρι καράβι καρδιά καρέκλα
κήπος κόκκινος κορίτσι κόσμος κουζίνα κρύος λεφτά λέξη λίγο λίμνη λουλούδι μακριά μαζί μάτια μεγάλος μέρα μήλο
μητέρα μικρός μουσική μπροστά νερό νησί νέος νύχτα ξύλο όμως όνειρο όνομα όταν ουρανός παιδί παλιός πάντα
παράθυρο πατέρας πέτρα πίσω πλατεία πόλη πόρτα ποτάμι ποτέ πουλί πρώτος πρωί σήμερα σκύλος σπίτι στιγμή
σύννεφο συχνά σχολείο σωστός ταξίδι τίποτα τραπέζι τώρα φεγγάρι φθινόπωρο φίλος φως φωνή χαρά χειμώνας χέρι
χιόνι χρόνος χωριό ψάρι ψηλά ψωμί ώρα
"""
_AR = """
أب أبدا أبيض أحمر أخ أخضر أرض أزرق أسبوع أستاذ أصدقاء أطفال أغنية ألف أمام أمس أنهار أولا أين إلى إنسان اليوم
الآن باب بارد بحر بحيرة بداية برد بسيط بعد بعيد بلاد بنت بيت تاريخ تحت ترجمة تفاح ثقيل ثلاثة ثلج ثم جامعة جبل
جدا جديد جسر جميل جنوب حاجة حبيب حتى حجر حديقة حرب حصان حقل حكاية حليب حول حياة خارج خبز خريف خفيف خلال دائما
داخل درس دولة ذهب رأس ربيع رجل رحلة رسالة ريح زهرة سؤال ساعة سريع سعيد سفينة سماء سمك سنة سوق سيارة شارع شتاء
شجرة شرق شمال شمس صباح صديق صغير صوت صورة صيف ضوء طاولة طبيب طريق طعام طفل طويل ظهر عائلة عالم عشرة عصفور علم
عمل عين غابة غدا غرب غرفة فجأة فقط فكرة قبل قديم قرية قلب قليل قمر قهوة كبير كتاب كثير كرسي كلمة لأن لغة لماذا
لون ليل ماء مدرسة مدينة مريض مساء مطبخ مطر معا مفتاح مكان ملك منزل موسيقى نار نافذة نهر هادئ هنا هواء وقت ولد
يوم
"""
_HI = """
अगर अच्छा अधिक अपना अब अभी अलग आंख आकाश आग आज आदमी आप आम आवाज इतिहास इसलिए उत्तर उधर ऊपर एक ऐसा और औरत कपड़ा कब
कभी कमरा कम कल कविता कहां कहानी काम कारण काला किताब किनारा किसान कुछ कुर्सी कैसे कौन क्यों खाना खिड़की खुशी खेत खेल गरम
गर्मी गांव गाना गाय गीत गुलाब घर घोड़ा चांद चाय चावल चिट्ठी चिड़िया छाया छोटा जंगल जब जल जल्दी जवाब जहां जीवन ज्ञान झील
ठंडा डाक तारा तालाब तेज तैयार थोड़ा दरवाजा दस दाल दिन दीवार दुकान दुनिया दूध दूर देर देश दोपहर दोस्त धन धरती धीरे धूप नदी
नमक नया नहीं नाम नाव नीचे नीला नौकर पक्षी पता पत्थर पहला पहाड़ पानी पास पिता पुराना पुल पूरा पेड़ प्यार प्रश्न फल फिर फूल
बच्चा बड़ा बरसात बर्फ बहन बहुत बात बाद बादल बाहर बीच भाई भाषा भूख मकान मछली मन माता मिट्टी मित्र मीठा मुश्किल मेज मेला
मौसम यहां यात्रा रंग राजा रात रास्ता रोटी लंबा लकड़ी लड़का लाल लेकिन लोग वन वर्ष वहां विद्यालय शहर शाम शिक्षक संगीत सच सड़क
समय समुद्र सरल सवाल साथ सुंदर सुबह सूरज हमेशा हवा हाथ हृदय
"""
_KO = """
가게 가끔 가을 가족 가지 감사 강아지 거리 거울 건강 걱정 겨울 결과 계속 계절 고기 고양이 고향 공부 공원 과일
과학 교실 구름 그래서 그러나 그림 글씨 기억 기차 길이 김치 깊은 까만 꽃이 나라 나무 나중에 날마다 날씨 남쪽
내일 냉장고 넓은 노래 높은 눈이 느린 다리 다시 단어 달이 담배 대답 대학 도서관 도시 도움 돌아 동생 동쪽 두꺼운
드디어 들판 따뜻한 땅이 때문에 마당 마을 마음 많이 말씀 매일 먼저 멀리 모두 모래 목소리 무거운 문제 물고기
미래 바다 바람 바위 밖에 반드시 방법 밥을 배가 버스 벌써 별이 병원 부엌 북쪽 불빛 비가 빨리 빵을 사과 사람
사랑 사이 산에 새벽 색깔 생각 생활 서울 서쪽 선물 선생님 섬에 세계 소금 소리 손님 수업 숲에 시간 시장 식사
신문 쓰는 아기 아까 아마 아버지 아이 아직 아침 약속 어디 어머니 언제나 얼굴 여름 여행 역사 연필 오늘 오래 옷을
외국 우리 우유 운동 음악 의자 이름 이야기 일찍 자전거 작은 저녁 점심 정말 조용히 주말 지금 지도 창문 책을
천천히 친구 편지 하늘 학교 학생 함께 항상 행복 호수 화요일
"""
_ZH = """
安静 办法 帮助 北方 变化 别人 不过 博物 参加 厨房 窗户 春天 从来 村庄 打开 大家 大雨 但是 当时 到处 地铁 等待
电影 东西 冬天 动物 读书 对面 多少 儿童 发现 方便 房间 放心 飞机 非常 风景 附近 父亲 刚才 高兴 告诉 各种 根据
工厂 公司 孩子 海边 好像 河流 后来 花园 回答 机会 已经 几乎 季节 简单 健康 将来 讲话 饺子 觉得 今天 经常 景色
决定 开始 看见 考试 可能 空气 快乐 困难 蓝色 老师 离开 历史 邻居 旅行 马上 美丽 门口 米饭 明白 母亲 哪里 南边
年轻 努力 朋友 苹果 起来 汽车 桥梁 清楚 情况 秋天 全部 然后 认真 如果 森林 山上 商店 生活 声音 时候 世界 事情
树木 水果 说话 虽然 所以 太阳 天气 听见 同学 图书 外面 忘记 为什么 温暖 我们 喜欢 夏天 现在 想法 小心 新闻
星星 兴趣 学校 雪花 颜色 眼睛 阳光 一定 因为 音乐 应该 永远 有时 雨伞 愿望 月亮 怎么样 早上 照片 这里 知道
重要 周末 准备 总是 最近 昨天 他住在城市的北边 我想喝一杯热茶 这本书很有意思 明天我们去看望奶奶
请问火车站怎么走 孩子们在公园里玩 每天早上六点起床 她已经学了三年中文 路上的人越来越多 晚饭以后出去散步
这个问题不难回答 把窗户关上吧
"""
_JA = """
会う 青い 赤い 明日 朝食 足り 味わ 遊び 温か 新し 集め 雨の 歩く 家族 行く 忙し 一緒 犬が 今は 妹と 色の 上に
動く 歌う 海へ 売る 駅前 選ぶ 多い 大き 置く 送る 教え 落ち 男の 覚え 思う 泳ぐ 終わ 買う 帰る 書く 貸す 風が
形の 悲し 紙に 通う 体の 軽い 川で 考え 黄色 聞く 北へ 昨日 切る 着る 薬を 暗い 車で 黒い 景気 消す 答え 言葉
今日 魚を 咲く 寒い 静か 知る 白い 親切 好き 少し 住む 座る 世話 空の 大切 高い 助け 楽し 食べ 誰か 小さ 近い
疲れ 次の 作る 土の 強い 手紙 遠い 時計 特に 友達 鳥が 長い 夏の 何も 習う 西へ 庭に 寝る 飲む 乗る 入る 箱に
橋を 始め 走る 働く 花の 母の 早い 春の 晩に 低い 左の 人が 光る 昼も 広い 深い 吹く 冬の 古い 部屋 星を 本を
毎日 窓の 待つ 守る 短い 水を 店で 道に 緑の 皆で 南へ 耳を 村の 眼鏡 持つ 森で 休む 安い 山へ 夕方 雪が 夢を
夜の 喜び 読む 弱い 若い 忘れ 私の 笑う これ それ あの とても ゆっくり すぐに たくさん もちろん いつも カメラ
テレビ 図書館で本を借りました 窓を開けてもいいですか 電車は時間どおりに来る 兄は海の近くに住んでいる
来週までに答えてください 雨が降っているので出かけない もう一度説明してもらえますか
"""
_TH = """
กลาง กลางคืน กลับ กล้วย กว้าง ก่อน กาแฟ กำลัง กิน เก่า เก้าอี้ เกาะ ไก่ ขนม ขวา ขอบคุณ ขาย ข้าว ข้างนอก ขึ้น เขียน เขียว แข็งแรง
ความสุข ความรัก คนไทย ครอบครัว ครั้ง ครู คำตอบ คำถาม คิดถึง คืนนี้ เครื่องบิน งาน ง่าย จดหมาย จริง จังหวัด จำได้ ใจดี ฉัน ชอบ ช้าๆ
ชาวนา ชีวิต ชื่อ เช้านี้ เชื่อ ซ้าย ซื้อ เดิน เดือน ดวงจันทร์ ดอกไม้ ดินสอ ดีมาก ด้วยกัน ตลาด ตลอด ต้นไม้ ต้องการ ตอนเย็น ตาม ตื่น แต่ง
โต๊ะ ถนน ถ้า ถาม ถึง ทะเล ทำไม ทำงาน ทุกวัน ท้องฟ้า เที่ยว นก นอน น้ำ น้องสาว นักเรียน นาฬิกา นิดหน่อย เนื้อ แนะนำ บอก บ่อย บ้าน
บางที ใบไม้ ประตู ประเทศ ปลา ปัญหา เปิด เป็น แปด ผลไม้ ผู้ชาย ผู้หญิง เพราะ เพลง เพื่อน แพง ฝน พรุ่งนี้ พ่อแม่ พี่ชาย พูด ฟัง ภาพ ภาษา
ภูเขา มหาวิทยาลัย มะม่วง เมื่อวาน เมือง แมว แม่น้ำ ไม่มี ยาว ยาก ยังไม่ เย็น รถไฟ ร้อน รอบ ร่ม รักษา ร้านอาหาร รู้จัก เรียน เรือ เรื่อง
แรก โรงเรียน ลม ลูก เล็ก เล่น เลือก วัด วันนี้ วิ่ง เวลา สนุก สวน สวย สะพาน สีขาว สีแดง สุนัข เสมอ เสียง หนังสือ หน้าต่าง หน้าหนาว
หมู่บ้าน หวาน หัวเราะ หิมะ หลังจาก เห็น ใหญ่ อยากไป อากาศ อ่าน อาหาร อีก อุ่น เอามา ไฟฟ้า
"""

LANGUAGES: dict[str, Words] = {
    "en": Words(tuple(_EN.split()), capitals=True),
    "de": Words(tuple(_DE.split()), capitals=True),
    "fr": Words(tuple(_FR.split()), capitals=True),
    "es": Words(tuple(_ES.split()), capitals=True),
    "pt": Words(tuple(_PT.split()), capitals=True),
    "ru": Words(tuple(_RU.split()), capitals=True),
    "el": Words(tuple(_EL.split()), ends=(".", ".", ".", ";"), capitals=True, pairs=True),
    "ar": Words(tuple(_AR.split()), comma="،", ends=(".", ".", ".", "؟")),
    "hi": Words(tuple(_HI.split()), ends=("।", "।", "।", "?"), pairs=True),
    "ko": Words(tuple(_KO.split())),
    "zh": Words(tuple(_ZH.split()), space="", comma="，", ends=("。", "。", "。", "？"), pairs=True),
    "ja": Words(tuple(_JA.split()), space="", comma="、", ends=("。", "。", "。", "？"), pairs=True),
    "th": Words(tuple(_TH.split()), space="", comma=" ", ends=(" ",), pairs=True),
}
"""By the language's code in ISO 639-1."""
