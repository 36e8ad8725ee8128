"""The categories of LVIS v0.5 and v1, most of which the two share.

Entries end with a semicolon; line breaks mean nothing. An entry is the frequency in v1 and that in
v0.5 (``f``, ``c``, ``r``; ``-`` if it has no such category), the synonyms, and the synset after
``=``: all of it, ``pos.number`` if it starts with the first synonym, nothing for ``.n.01``. In both
versions ids count from 1 in this order.
"""

from typing import Any

_TABLE = """
-racorn;ccaerosol_can,spray_can=aerosol.n.02;ffair_conditioner;ffairplane,aeroplane;fcalarm_clock;
ccalcohol,alcoholic_beverage;cralligator,gator=n.02;ccalmond=n.02;ccambulance;cramplifier;
ccanklet,ankle_bracelet=n.03;ffantenna,aerial,transmitting_aerial;ffapple;-rapple_juice;
rrapplesauce;rrapricot=n.02;ffapron;ccaquarium,fish_tank;
r-arctic_(type_of_shoe),galosh,golosh,rubber_(type_of_shoe),gumshoe=arctic.n.02;ccarmband=n.02;
ffarmchair;rrarmoire;rrarmor,armour;ccartichoke=n.02;
fftrash_can,garbage_can,wastebin,dustbin,trash_barrel,trash_bin=ashcan.n.01;ccashtray;
ccasparagus=n.02;ccatomizer,atomiser,spray,sprayer,nebulizer,nebuliser;fcavocado;
ccaward,accolade=n.02;ffawning;rrax,axe;r-baboon;
ffbaby_buggy,baby_carriage,perambulator,pram,stroller;ccbasketball_backboard=backboard.n.01;
ffbackpack,knapsack,packsack,rucksack,haversack;ffhandbag,purse,pocketbook=bag.n.04;
ffsuitcase,baggage,luggage=bag.n.06;ccbagel,beigel;rrbagpipe;rrbaguet,baguette;rrbait,lure=n.02;
ffball=n.06;rrballet_skirt,tutu;ffballoon;ccbamboo=n.02;ffbanana=n.02;crBand_Aid=band_aid.n.01;
ccbandage;fcbandanna,bandana;rrbanjo;ffbanner,streamer;rrbarbell;rrbarge;ffbarrel,cask=n.02;
ccbarrette;ccbarrow,garden_cart,lawn_cart,wheelbarrow=n.03;ffbaseball_base=base.n.03;
ffbaseball=n.02;ffbaseball_bat;ffbaseball_cap,jockey_cap,golf_cap;ffbaseball_glove,baseball_mitt;
ffbasket,handbasket;-cbasketball_hoop=basket.n.03;ccbasketball=n.02;rrbass_horn,sousaphone,tuba;
crbat_(animal)=bat.n.01;ffbath_mat;ffbath_towel;ccbathrobe;ffbathtub,bathing_tub;
rrbatter_(food)=batter.n.02;ccbattery=n.02;rrbeachball=beach_ball.n.01;ccbead;-rbeaker;
ccbean_curd,tofu;ccbeanbag;ffbeanie,beany;ffbear;ffbed;r-bedpan;
fcbedspread,bedcover,bed_covering,counterpane,spread;ffcow=beef.n.01;
fcbeef_(food),boeuf_(food)=beef.n.02;rrbeeper,pager;ffbeer_bottle;ccbeer_can;rrbeetle;ffbell;
ffbell_pepper,capsicum=n.02;ffbelt=n.02;ffbelt_buckle;ffbench;ccberet;ccbib=n.02;
rrBible=bible.n.01;ffbicycle,bike_(bicycle);ffvisor,vizor=bill.n.09;f-billboard;
ccbinder,ring-binder=n.03;ccbinoculars,field_glasses,opera_glasses;ffbird;
crbirdfeeder=bird_feeder.n.01;crbirdbath;ccbirdcage;ccbirdhouse;ffbirthday_cake;rrbirthday_card;
-rbiscuit_(bread)=biscuit.n.01;rrpirate_flag=black_flag.n.01;ccblack_sheep=n.02;c-blackberry;
fcblackboard,chalkboard;ffblanket;ccblazer,sport_jacket,sport_coat,sports_jacket,sports_coat;
ffblender,liquidizer,liquidiser;rrblimp=n.02;fcblinker,flasher;f-blouse;fcblueberry=n.02;
-rboar=n.02;rrgameboard=board.n.09;ffboat,ship_(boat);r-bob,bobber,bobfloat=n.05;
ccbobbin,spool,reel;crbobby_pin,hairgrip;ccboiled_egg,coddled_egg;rrbolo_tie,bolo,bola_tie,bola;
ccdeadbolt=bolt.n.03;ffbolt=n.06;rrbonnet;ffbook;-rbook_bag;ccbookcase;
ccbooklet,brochure,leaflet,pamphlet;rrbookmark,bookmarker;
rrboom_microphone,microphone_boom=boom.n.04;ffboot;ffbottle;ccbottle_opener;ccbouquet;
rrbow_(weapon)=bow.n.04;ffbow_(decorative_ribbons)=bow.n.08;ffbow-tie,bowtie=bow_tie.n.01;
ffbowl=n.03;rrpipe_bowl=bowl.n.08;ccbowler_hat,bowler,derby_hat,derby,plug_hat;rrbowling_ball;
f-box;-rbowling_pin;rrboxing_glove;ccsuspenders=brace.n.06;ffbracelet,bangle=n.02;
rrbrass_plaque=brass.n.07;ccbrassiere,bra,bandeau;ccbread-bin,breadbox;f-bread;
rrbreechcloth,breechclout,loincloth;fcbridal_gown,wedding_gown,wedding_dress;ccbriefcase;
-cbristle_brush;ffbroccoli;rrbroach=brooch.n.01;ccbroom;ccbrownie=n.03;ccbrussels_sprouts;
rrbubble_gum;ffbucket,pail;rrhorse_buggy=buggy.n.01;c-horned_cow=bull.n.11;-cbull=n.11;crbulldog;
rrbulldozer,dozer;ccbullet_train;ccbulletin_board,notice_board=n.02;rrbulletproof_vest;
ccbullhorn,megaphone;-rcorned_beef,corn_beef=bully_beef.n.01;ffbun,roll;ccbunk_bed;ffbuoy;
rrburrito;ffbus_(vehicle),autobus,charabanc,double-decker,motorbus,motorcoach=bus.n.01;
ccbusiness_card;-cbutcher_knife;fcbutter;ccbutterfly;ffbutton;ffcab_(taxi),taxi,taxicab=cab.n.03;
rrcabana;crcabin_car,caboose;ffcabinet;rrlocker,storage_locker=cabinet.n.03;ffcake=n.03;
cccalculator=n.02;ffcalendar=n.02;cccalf;cccamcorder;cccamel;ffcamera;cccamera_lens;
cccamper_(vehicle),camping_bus,motor_home=camper.n.02;ffcan,tin_can;cccan_opener,tin_opener;
-rcandelabrum,candelabra;ffcandle,candlestick;ffcandle_holder=candlestick.n.01;rrcandy_bar;
cccandy_cane;ccwalking_cane=cane.n.01;cccanister,cannister=n.02;-rcannon=n.02;cccanoe;
crcantaloup,cantaloupe=n.02;rrcanteen;fccap_(headwear)=cap.n.01;
ffbottle_cap,cap_(container_lid)=cap.n.02;crcape=n.02;cccappuccino,coffee_cappuccino;
ffcar_(automobile),auto_(automobile),automobile=car.n.01;
ffrailcar_(part_of_a_train),railway_car_(part_of_a_train),railroad_car_(part_of_a_train)=car.n.02;
rrelevator_car=car.n.04;rrcar_battery,automobile_battery;ccidentity_card=card.n.02;cccard=n.03;
crcardigan;rrcargo_ship,cargo_vessel;rrcarnation;cchorse_carriage=carriage.n.02;ffcarrot;
fctote_bag=carryall.n.01;cccart;cccarton=n.02;cccash_register,register_(for_cash_transactions);
rrcasserole;rrcassette;cccast,plaster_cast,plaster_bandage=n.05;ffcat;fccauliflower=n.02;
-rcaviar,caviare;cccayenne_(spice),cayenne_pepper_(spice),red_pepper_(spice)=cayenne.n.02;
ccCD_player=cd_player.n.01;fccelery;
ffcellular_telephone,cellular_phone,cellphone,mobile_phone,smart_phone;
rrchain_mail,ring_mail,chain_armor,chain_armour,ring_armor,ring_armour;ffchair;
rrchaise_longue,chaise,daybed;r-chalice;-rchampagne;ffchandelier;rrchap=n.04;
rrcheckbook,chequebook;rrcheckerboard;cccherry=n.03;rrchessboard;
-rchest_of_drawers_(furniture),bureau_(furniture),chest_(furniture)=chest_of_drawers.n.01;
ccchicken_(animal)=chicken.n.02;-cchicken_wire;crchickpea,garbanzo;-rChihuahua=chihuahua.n.03;
crchili_(vegetable),chili_pepper_(vegetable),chilli_(vegetable),chilly_(vegetable),
chile_(vegetable)=chili.n.02;
rrchime,gong;rrchinaware;cccrisp_(potato_chip),potato_chip=chip.n.04;rrpoker_chip=chip.n.06;
ccchocolate_bar;ccchocolate_cake;rrchocolate_milk;rrchocolate_mousse;ffchoker,collar,neckband=n.03;
ffchopping_board,cutting_board,chopping_block;fcchopstick;ffChristmas_tree=christmas_tree.n.05;
ccslide=chute.n.02;rrcider,cyder;rrcigar_box;fccigarette;cccigarette_case,cigarette_pack;
ffcistern,water_tank=n.02;rrclarinet;crclasp;cccleansing_agent,cleanser,cleaner;
r-cleat_(for_securing_rope)=cleat.n.02;rrclementine;ccclip=n.03;ccclipboard;
r-clippers_(for_plants)=clipper.n.03;r-cloak=n.02;ffclock,timepiece,timekeeper;ffclock_tower;
ccclothes_hamper,laundry_basket,clothes_basket;ccclothespin,clothes_peg;rrclutch_bag;
ffcoaster=n.03;ffcoat;cccoat_hanger,clothes_hanger,dress_hanger;crcoatrack,hatrack;
cccock,rooster=n.04;r-cockroach;
r-cocoa_(beverage),hot_chocolate_(beverage),drinking_chocolate=cocoa.n.01;cccoconut,cocoanut=n.02;
-rcoffee_filter;ffcoffee_maker,coffee_machine;ffcoffee_table,cocktail_table;cccoffeepot;
rrcoil=n.05;cccoin;crcolander,cullender;cccoleslaw,slaw;rrcoloring_material,colouring_material;
rrcombination_lock;ccpacifier,teething_ring=comforter.n.04;rrcomic_book;r-compass;
ffcomputer_keyboard,keyboard_(computer);f-condiment;-rconcrete_mixer,cement_mixer;
ffcone,traffic_cone;ffcontrol,controller=n.09;rrconvertible_(automobile)=convertible.n.01;
rrsofa_bed=convertible.n.03;r-cooker;fccookie,cooky,biscuit_(cookie);-rcookie_jar,cooky_jar;
rrcooking_utensil;ffcooler_(for_food),ice_chest=cooler.n.01;
fccork_(bottle_plug),bottle_cork=cork.n.04;rrcorkboard;crcorkscrew,bottle_screw;
fcedible_corn,corn,maize=corn.n.03;rrcornbread;cccornet,horn,trumpet;
cccornice,valance,valance_board,pelmet;rrcornmeal;crcorset,girdle;-rromaine_lettuce=cos.n.02;
cccostume=n.04;rrcougar,puma,catamount,mountain_lion,panther;rrcoverall;crcowbell;
ffcowboy_hat,ten-gallon_hat;crcrab_(animal)=crab.n.01;r-crabmeat=crab.n.05;cccracker;
rrcrape,crepe,French_pancake;ffcrate;crcrayon,wax_crayon;rrcream_pitcher;
-rcredit_card,charge_card,debit_card;cccrescent_roll,croissant;cccrib,cot;
cccrock_pot,earthenware_jar=crock.n.03;ffcrossbar;rrcrouton;crcrow;r-crowbar,wrecking_bar,pry_bar;
cccrown=n.04;cccrucifix;cccruise_ship,cruise_liner;
ccpolice_cruiser,patrol_car,police_car,squad_car=cruiser.n.01;fccrumb=n.03;crcrutch;
cccub_(animal)=cub.n.03;crcube,square_block=n.05;ffcucumber,cuke=n.02;cccufflink;ffcup;
cctrophy_cup=cup.n.08;f-cupboard,closet;fccupcake;
rrhair_curler,hair_roller,hair_crimper=curler.n.01;rrcurling_iron;ffcurtain,drapery;ffcushion=n.03;
-rcustard;-ccutting_tool=cutter.n.06;rrcylinder=n.04;rrcymbal;-rdachshund,dachsie,badger_dog;
rrdagger;r-dalmatian=n.02;crdartboard;rrdate_(fruit)=date.n.08;ffdeck_chair,beach_chair;
ccdeer,cervid;ccdental_floss,floss;ffdesk;rrdetergent;ccdiaper;rrdiary,journal;rrdie,dice;
rrdinghy,dory,rowboat;ffdining_table;rrtux,tuxedo=dinner_jacket.n.01;fcdish;
ccdish_antenna=dish.n.05;ccdishrag,dishcloth;fcdishtowel,tea_towel;
ffdishwasher,dishwashing_machine;
r-dishwasher_detergent,dishwashing_detergent,dishwashing_liquid,dishsoap;
-rdishwasher_detergent,dishwashing_detergent,dishwashing_liquid;-rdiskette,floppy,floppy_disk;
fcdispenser;r-diving_board;fcDixie_cup,paper_cup=dixie_cup.n.01;ffdog;ffdog_collar;fcdoll;
rrdollar,dollar_bill,one_dollar_bill=n.02;r-dollhouse,doll's_house;crdolphin=n.02;
ccdomestic_ass,donkey;-reye_mask=domino.n.03;-rdoorbell,buzzer;ffdoorknob,doorhandle;
ccdoormat,welcome_mat=n.02;ffdoughnut,donut=n.02;rrdove;rrdragonfly;ffdrawer;
ccunderdrawers,boxers,boxershorts=drawers.n.01;ffdress,frock;
ccdress_hat,high_hat,opera_hat,silk_hat,top_hat;fcdress_suit;fcdresser=n.05;ccdrill;
-rdrinking_fountain;rrdrone=n.04;rrdropper,eye_dropper;ccdrum_(musical_instrument)=drum.n.01;
rrdrumstick=n.02;ffduck;crduckling=n.02;ccduct_tape;ffduffel_bag,duffle_bag,duffel,duffle;
rrdumbbell;ccdumpster;rrdustpan=n.02;-rDutch_oven=dutch_oven.n.02;cceagle;
ffearphone,earpiece,headphone;rrearplug;ffearring;cceasel;rreclair;rreel;ffegg,eggs=n.02;
rregg_roll,spring_roll;ccegg_yolk,yolk_(egg);cceggbeater,eggwhisk=n.02;cceggplant,aubergine;
rrelectric_chair;ffrefrigerator=electric_refrigerator.n.01;ffelephant;crelk,moose;ccenvelope;
cceraser;rrescargot;rreyepatch;rrfalcon;fffan;fffaucet,spigot,tap;rrfedora;rrferret=n.02;
ccFerris_wheel=ferris_wheel.n.01;crferry,ferryboat;rrfig_(fruit)=fig.n.04;
ccfighter_jet,fighter_aircraft,attack_aircraft=fighter.n.02;fffigurine;
ccfile_cabinet,filing_cabinet=file.n.03;rrfile_(tool)=file.n.04;fffire_alarm,smoke_alarm=n.02;
fcfire_engine,fire_truck;fcfire_extinguisher,extinguisher;ccfire_hose;fffireplace;
fffireplug,fire_hydrant,hydrant;r-first-aid_kit;fcfish;crfish_(food)=fish.n.02;
rrfishbowl,goldfish_bowl=n.02;-rfishing_boat,fishing_vessel;ccfishing_rod,fishing_pole;ffflag;
ffflagpole,flagstaff=n.02;ccflamingo;ccflannel;c-flap;rrflash,flashbulb=n.10;ccflashlight,torch;
rrfleece=n.03;ffflip-flop_(sandal)=flip-flop.n.02;ccflipper_(footwear),fin_(footwear)=flipper.n.01;
ffflower_arrangement,floral_arrangement;ccflute_glass,champagne_flute=flute.n.02;crfoal;
ccfolding_chair;ccfood_processor;ccfootball_(American)=football.n.02;rrfootball_helmet;
ccfootstool,footrest;fffork;crforklift;crfreight_car;crFrench_toast=french_toast.n.01;
ccfreshener,air_freshener;fffrisbee;ccfrog,toad,toad_frog;ccfruit_juice;-rfruit_salad;
fcfrying_pan,frypan,skillet;rrfudge;rrfunnel=n.02;rcfuton;rrgag,muzzle=n.02;rrgarbage=n.03;
ccgarbage_truck;ccgarden_hose;ccgargle,mouthwash;rrgargoyle=n.02;ccgarlic,ail=n.02;
rrgasmask,respirator,gas_helmet;crgazelle;ccgelatin,jelly=n.02;rrgemstone=gem.n.02;
r-generator=n.02;ccgiant_panda,panda,panda_bear;ccgift_wrap;ccginger,gingerroot=n.03;ffgiraffe;
cccincture,sash,waistband,waistcloth=girdle.n.02;
ffglass_(drink_container),drinking_glass=glass.n.02;ccglobe=n.03;ffglove=n.02;ccgoat;ffgoggles;
rrgoldfish;crgolf_club,golf-club=n.02;ccgolfcart;rrgondola_(boat)=gondola.n.02;ccgoose;rrgorilla;
rrgourd=n.02;-rsurgical_gown,scrubs_(surgical_clothing)=gown.n.04;ffgrape;-rgrasshopper;ccgrater;
ccgravestone,headstone,tombstone;rrgravy_boat,gravy_holder;fcgreen_bean=n.02;
fcgreen_onion,spring_onion,scallion;rrgriddle;f-grill,grille,grillwork,radiator_grille=n.02;
-rgrillroom,grill_(restaurant);-rgrinder_(tool)=grinder.n.04;rrgrits,hominy_grits;
ccgrizzly,grizzly_bear;ccgrocery_bag;-rguacamole;ffguitar;ccgull,seagull=n.02;ccgun;-rhair_spray;
fchairbrush;cchairnet;cchairpin;r-halter_top=halter.n.03;ffham,jambon,gammon;
cchamburger,beefburger,burger;cchammer=n.02;crhammock=n.02;rrhamper=n.02;crhamster;
fchair_dryer=hand_blower.n.01;rrhand_glass,hand_mirror;ffhand_towel,face_towel;
cchandcart,pushcart,hand_truck;rrhandcuff;cchandkerchief;ffhandle,grip,handgrip;
rrhandsaw,carpenter's_saw;rrhardback_book,hardcover_book=hardback.n.01;
rrharmonium,organ_(musical_instrument),reed_organ_(musical_instrument);ffhat;rrhatbox;-rhatch=n.03;
ccveil=head_covering.n.01;ffheadband;ffheadboard;ffheadlight,headlamp;ccheadscarf;rrheadset;
ccheadstall_(for_horses),headpiece_(for_horses)=headstall.n.01;-rhearing_aid=n.02;ccheart=n.02;
ccheater,warmer;cchelicopter;ffhelmet=n.02;rrheron=n.02;cchighchair,feeding_chair;ffhinge;
rrhippopotamus;rrhockey_stick;cchog,pig=n.03;
ffhome_plate_(baseball),home_base_(baseball)=home_plate.n.01;cchoney;
fffume_hood,exhaust_hood=hood.n.06;ffhook=n.05;
r-hookah,narghile,nargileh,sheesha,shisha,water_pipe;r-hornet;ffhorse;ffhose,hosepipe=n.03;
rrhot-air_balloon;rrhotplate=hot_plate.n.01;cchot_sauce;rrhourglass;rrhouseboat;crhummingbird;
rrhummus,humus,hommos,hoummos,humous;fcpolar_bear=ice_bear.n.01;ccicecream=ice_cream.n.01;
rrpopsicle=ice_lolly.n.01;ccice_maker;rrice_pack,ice_bag;rrice_skate;-rice_tea,iced_tea;
ccigniter,ignitor,lighter;-rincense;rrinhaler,inhalator;fciPod=ipod.n.01;
cciron_(for_clothing),smoothing_iron_(for_clothing)=iron.n.04;crironing_board;ffjacket;crjam;f-jar;
ffjean,blue_jean,denim;ccjeep,landrover;rrjelly_bean,jelly_egg;ffjersey,T-shirt,tee_shirt=n.03;
ccjet_plane,jet-propelled_plane=jet.n.01;r-jewel,gem,precious_stone;ccjewelry,jewellery;
rrjoystick=n.02;crjumpsuit=jump_suit.n.01;cckayak;rrkeg=n.02;rrkennel,doghouse;cckettle,boiler;
ffkey;rrkeycard;crkilt;cckimono;ffkitchen_sink;rckitchen_table;ffkite=n.03;cckitten,kitty;
cckiwi_fruit=kiwi.n.03;ffknee_pad;ffknife;-rknight_(chess_piece),horse_(chess_piece)=knight.n.02;
rrknitting_needle;ffknob=n.02;rrknocker_(on_a_door),doorknocker=knocker.n.05;rrkoala,koala_bear;
rrlab_coat,laboratory_coat;ffladder;ccladle;crladybug,ladybeetle,ladybird_beetle;
fclamb_(animal)=lamb.n.01;rrlamb-chop,lambchop=lamb_chop.n.01;fflamp=n.02;fflamppost;fflampshade;
cclantern;fflanyard,laniard=n.02;fflaptop_computer,notebook_computer=laptop.n.01;rrlasagna,lasagne;
fclatch=n.02;rrlawn_mower;rrleather;
cclegging_(clothing),leging_(clothing),leg_covering=legging.n.01;ccLego,Lego_set=lego.n.01;
r-legume=n.02;fflemon;rrlemonade;fflettuce=n.02;fflicense_plate,numberplate;
fflife_buoy,lifesaver,life_belt,life_ring;fflife_jacket,life_vest;fflightbulb=light_bulb.n.01;
rrlightning_rod,lightning_conductor=n.02;fclime=n.06;rrlimousine;-rlinen_paper=linen.n.02;cclion;
cclip_balm;-clipstick,lip_rouge;rrliquor,spirits,hard_liquor,liqueur,cordial;crlizard;
-rLoafer_(type_of_shoe)=loafer.n.02;fflog;cclollipop=n.02;-clotion;
ffspeaker_(stero_equipment)=loudspeaker.n.01;ccloveseat=love_seat.n.01;rrmachine_gun;
ffmagazine=n.02;ffmagnet;crmail_slot;fcmailbox_(at_home),letter_box_(at_home)=mailbox.n.01;
r-mallard;rrmallet;rrmammoth;r-manatee;ccmandarin_orange=mandarin.n.05;ccmanger,trough;ffmanhole;
fcmap;fcmarker=n.03;rrmartini;rrmascot;ccmashed_potato;rrmasher=n.02;ffmask,facemask=n.04;ffmast;
ccmat_(gym_equipment),gym_mat=mat.n.03;rrmatchbox;ffmattress;ccmeasuring_cup;
ccmeasuring_stick,ruler_(measuring_stick),measuring_rod;ccmeatball;ccmedicine=n.02;crmelon;
ffmicrophone;rrmicroscope;ffmicrowave_oven=microwave.n.02;rrmilestone,milepost;fcmilk;r-milk_can;
r-milkshake;ffminivan;rrmint_candy=mint.n.05;ffmirror;ccmitten;
ccmixer_(kitchen_tool),stand_mixer=mixer.n.04;ccmoney=n.03;
ffmonitor_(computer_equipment) computer_monitor=monitor.n.04;ccmonkey;ffmotor;
ffmotor_scooter,scooter;rrmotor_vehicle,automotive_vehicle;-rmotorboat,powerboat;ffmotorcycle;
ffmound_(baseball),pitcher's_mound=mound.n.01;-rmouse_(animal_rodent)=mouse.n.01;
ffmouse_(computer_equipment),computer_mouse=mouse.n.04;ffmousepad;ccmuffin;ffmug=n.04;
ffmushroom=n.02;rrmusic_stool,piano_stool;crmusical_instrument,instrument_(musical);rrnailfile;
-rnameplate;ffnapkin,table_napkin,serviette;rrneckerchief;ffnecklace;ffnecktie,tie_(necktie);
crneedle=n.03;ccnest;f-newspaper,paper_(newspaper);crnewsstand;
ccnightshirt,nightwear,sleepwear,nightclothes=nightwear.n.01;
rrnosebag_(for_animals),feedbag=nosebag.n.01;
crnoseband_(for_animals),nosepiece_(for_animals)=noseband.n.01;ffnotebook;ccnotepad;fcnut=n.03;
rrnutcracker;fcoar;rroctopus_(food)=octopus.n.01;rroctopus_(animal)=octopus.n.02;
ccoil_lamp,kerosene_lamp,kerosine_lamp;ccolive_oil;rromelet,omelette;ffonion;
fforange_(fruit)=orange.n.01;ccorange_juice;-roregano,marjoram;ccostrich=n.02;
fcottoman,pouf,pouffe,hassock=n.03;f-oven;ccoveralls_(clothing)=overall.n.01;ccowl;ccpacket=n.03;
rrinkpad,inking_pad,stamp_pad=pad.n.03;ccpad=n.04;fcpaddle,boat_paddle=n.04;ccpadlock;-rpaintbox;
ccpaintbrush;ffpainting;fcpajamas,pyjamas=pajama.n.02;ccpalette,pallet=n.02;
ffpan_(for_cooking),cooking_pan=pan.n.01;rrpan_(metal_container)=pan.n.03;ccpancake;rrpantyhose;
rrpapaya=n.02;-rpaperclip=paper_clip.n.01;ffpaper_plate;ffpaper_towel;
rrpaperback_book,paper-back_book,softback_book,soft-cover_book;rrpaperweight;ccparachute;
crparakeet,parrakeet,parroket,paraquet,paroquet,parroquet;ccparasail_(sports)=parasail.n.01;
c-parasol,sunshade;rrparchment;crparka,anorak;ffparking_meter;ccparrot;
ccpassenger_car_(part_of_a_train),coach_(part_of_a_train)=passenger_car.n.01;rrpassenger_ship;
crpassport=n.02;ffpastry=n.02;rrpatty_(food)=patty.n.01;ccpea_(food)=pea.n.01;ccpeach=n.03;
ccpeanut_butter;fcpear;crpeeler_(tool_for_fruit_and_vegetables)=peeler.n.03;
r-wooden_leg,pegleg=peg.n.04;rrpegboard;ccpelican;ffpen;fcpencil;rrpencil_box,pencil_case;
rrpencil_sharpener;rrpendulum;ccpenguin;rrpennant=n.02;rrpenny_(coin)=penny.n.02;
fcpepper,peppercorn=n.03;ccpepper_mill,pepper_grinder;ccperfume=n.02;rrpersimmon=n.02;
f-person,baby,child,boy,girl,man,woman,human;
-fbaby,child,boy,girl,man,woman,person,human=person.n.01;crpet;-rpetfood,pet-food;
crpew_(church_bench),church_bench=pew.n.01;rrphonebook,telephone_book,telephone_directory;
ccphonograph_record,phonograph_recording,record_(phonograph_recording);fcpiano;ffpickle;
ffpickup_truck=pickup.n.01;ccpie;ccpigeon;rrpiggy_bank,penny_bank;ffpillow;
rrpin_(non_jewelry)=pin.n.09;ffpineapple=n.02;ccpinecone;rrping-pong_ball;rrpinwheel=n.03;
rrtobacco_pipe=pipe.n.01;ffpipe,piping=n.02;rrpistol,handgun;crpita_(bread),pocket_bread=pita.n.01;
ffpitcher_(vessel_for_liquid),ewer=pitcher.n.02;rrpitchfork;ffpizza;ffplace_mat;ffplate=n.04;
ccplatter;-rplaying_card;rrplaypen;ccpliers,plyers;
rrplow_(farm_equipment),plough_(farm_equipment)=plow.n.01;r-plume=n.02;rrpocket_watch;
ccpocketknife;ccpoker_(fire_stirring_tool),stove_poker,fire_hook=poker.n.01;ffpole,post;
-rpolice_van,police_wagon,paddy_wagon,patrol_wagon;ffpolo_shirt,sport_shirt;rrponcho;ccpony=n.05;
rrpool_table,billiard_table,snooker_table;ffpop_(soda),soda_(pop),tonic,soft_drink=pop.n.02;
-rportrait,portrayal=n.02;ccpostbox_(public),mailbox_(public)=postbox.n.01;
ccpostcard,postal_card,mailing-card;ffposter,placard;ffpot;ffflowerpot=pot.n.04;ffpotato;
ccpotholder;ccpottery,clayware;ccpouch;crpower_shovel,excavator,digger;ccprawn,shrimp;c-pretzel;
ffprinter,printing_machine=n.03;ccprojectile_(weapon),missile=projectile.n.01;ccprojector=n.02;
ffpropeller,propellor;rrprune;rrpudding;rrpuffer_(fish),pufferfish,blowfish,globefish=puffer.n.02;
rrpuffin;rrpug-dog=pug.n.01;ccpumpkin=n.02;rrpuncher=punch.n.03;rrpuppet,marionette;crpuppy;
rrquesadilla;rrquiche=n.02;ffquilt,comforter;ccrabbit;rrrace_car,racing_car=racer.n.02;
ccracket,racquet=n.04;rrradar;fcradiator=n.03;ccradio_receiver,radio_set,radio,tuner_(radio);
ccradish,daikon=n.03;ccraft;rrrag_doll;ccraincoat,waterproof_jacket;ccram_(animal)=ram.n.05;
ccraspberry=n.02;rrrat;ccrazorblade;ccreamer_(juicer),juicer,juice_reamer=reamer.n.01;
ffrearview_mirror;ccreceipt=n.02;ccrecliner,reclining_chair,lounger_(chair);
crrecord_player,phonograph_(record_player),turntable;-rred_cabbage=n.02;ffreflector;
ffremote_control;ccrhinoceros;rrrib_(food)=rib.n.03;crrifle;ffring=n.08;rrriver_boat;
rrroad_map=n.02;ccrobe;ccrocking_chair;r-rodent;rrroller_skate;rrRollerblade=rollerblade.n.01;
ccrolling_pin;rrroot_beer;ccrouter_(computer_equipment)=router.n.02;ffrubber_band,elastic_band;
ccrunner_(carpet)=runner.n.08;ffplastic_bag,paper_bag=sack.n.01;
ffsaddle_(on_an_animal)=saddle.n.01;ffsaddle_blanket,saddlecloth,horse_blanket;ccsaddlebag;
rrsafety_pin;fcsail;fcsalad;rrsalad_plate,salad_bowl;crsalami;crsalmon_(fish)=salmon.n.01;
rrsalmon_(food)=salmon.n.03;crsalsa;ffsaltshaker;ffsandal_(type_of_shoe)=sandal.n.01;ffsandwich;
rrsatchel;rrsaucepan;ffsaucer=n.02;ffsausage;rrsawhorse,sawbuck;rrsaxophone=sax.n.02;
ffscale_(measuring_instrument)=scale.n.07;rrscarecrow,strawman;ffscarf;ccschool_bus;ffscissors;
fcscoreboard;-cscrambled_eggs;rrscraper;-rscratcher=n.03;ccscrewdriver;
fcscrubbing_brush=scrub_brush.n.01;ccsculpture;crseabird,seafowl;crseahorse=n.02;
rrseaplane,hydroplane;ccseashell;-rseedling;-cserving_dish;crsewing_machine;crshaker=n.03;
ccshampoo;crshark;rrsharpener;rrSharpie=sharpie.n.03;
rrshaver_(electric),electric_shaver,electric_razor=shaver.n.03;ccshaving_cream,shaving_soap;
rrshawl;rrshears;ffsheep;rrshepherd_dog,sheepdog;rrsherbert,sherbet;crshield=n.02;ffshirt;
ffshoe,sneaker_(type_of_shoe),tennis_shoe;fcshopping_bag;ccshopping_cart;
ffshort_pants,shorts_(clothing),trunks_(clothing);rrshot_glass;fcshoulder_bag;ccshovel;
ffshower_head=shower.n.01;r-shower_cap;ffshower_curtain;rrshredder_(for_paper)=shredder.n.01;
-rsieve,screen_(sieve);ffsignboard;ccsilo;ffsink;ffskateboard;ccskewer;ffski;ffski_boot;
ffski_parka,ski_jacket;ffski_pole;ffskirt=n.02;r-skullcap;ccsled,sledge,sleigh;ccsleeping_bag;
rrsling_(bandage),triangular_bandage=sling.n.05;
ccslipper_(footwear),carpet_slipper_(footwear)=slipper.n.01;rrsmoothie=n.02;rrsnake,serpent;
ffsnowboard;ccsnowman;ccsnowmobile;ffsoap;ffsoccer_ball;ffsock;-rsoda_fountain=n.02;
-rcarbonated_water,club_soda,seltzer,sparkling_water=soda_water.n.01;ffsofa,couch,lounge;
rrsoftball;ccsolar_array,solar_battery,solar_panel;rrsombrero=n.02;fcsoup;rrsoup_bowl;ccsoupspoon;
ccsour_cream,soured_cream;rrsoya_milk,soybean_milk,soymilk;rrspace_shuttle;
rrsparkler_(fireworks)=sparkler.n.02;ffspatula=n.02;rrspear,lance;
ffspectacles,specs,eyeglasses,glasses;ccspice_rack;crspider;r-crawfish,crayfish=spiny_lobster.n.02;
ccsponge;ffspoon;ccsportswear,athletic_wear,activewear;ccspotlight=n.02;
r-squid_(food),calamari,calamary=squid.n.01;crsquirrel;r-stagecoach;
ccstapler_(stapling_machine)=stapler.n.01;crstarfish,sea_star;ffstatue_(sculpture)=statue.n.01;
ccsteak_(food)=steak.n.01;rrsteak_knife;-rsteamer_(kitchen_appliance)=steamer.n.02;
ffsteering_wheel;-rstencil;rrstepladder=step_ladder.n.01;ccstep_stool;
ccstereo_(sound_system)=stereo.n.01;rrstew=n.02;rrstirrer=n.02;ffstirrup;
-cstockings_(leg_wear)=stocking.n.01;ffstool;ffstop_sign;ffbrake_light=stoplight.n.01;
ffstove,kitchen_stove,range_(kitchen_appliance),kitchen_range,cooking_stove;ccstrainer;ffstrap;
ffstraw_(for_drinking),drinking_straw=straw.n.04;ffstrawberry;ffstreet_sign;
ffstreetlight,street_lamp;rrstring_cheese;rrstylus=n.02;rrsubwoofer;rrsugar_bowl;
rrsugarcane_(plant)=sugarcane.n.01;fcsuit_(clothing)=suit.n.01;ccsunflower;ffsunglasses;ccsunhat;
-rsunscreen,sunblock;ffsurfboard;ccsushi;ccmop=swab.n.02;ccsweat_pants;ccsweatband=n.02;ffsweater;
ffsweatshirt;ccsweet_potato=n.02;
ffswimsuit,swimwear,bathing_suit,swimming_costume,bathing_costume,swimming_trunks,bathing_trunks;
ccsword;rrsyringe;rrTabasco_sauce=tabasco.n.02;rrtable-tennis_table,ping-pong_table;fftable=n.02;
cctable_lamp;fftablecloth;rrtachometer;rrtaco=n.02;fftag=n.02;fftaillight,rear_light;rrtambourine;
rrarmy_tank,armored_combat_vehicle,armoured_combat_vehicle=tank.n.01;
fctank_(storage_vessel),storage_tank=tank.n.02;fftank_top_(clothing)=tank_top.n.01;
fctape_(sticky_cloth_or_paper)=tape.n.01;cctape_measure,measuring_tape=tape.n.04;cctapestry=n.02;
fftarp=tarpaulin.n.01;cctartan,plaid;cctassel;crtea_bag;ccteacup=n.02;ccteakettle;fcteapot;
ffteddy_bear=teddy.n.01;fftelephone,phone,telephone_set;
cctelephone_booth,phone_booth,call_box,telephone_box,telephone_kiosk;
fftelephone_pole,telegraph_pole,telegraph_post;rrtelephoto_lens,zoom_lens;
cctelevision_camera,tv_camera;fftelevision_set,tv,tv_set=television_receiver.n.01;fftennis_ball;
fftennis_racket;rrtequila;ccthermometer;ccthermos_bottle=thermos.n.01;fcthermostat;rrthimble=n.02;
ccthread,yarn;ccthumbtack,drawing_pin,pushpin;cctiara;cctiger=n.02;
cctights_(clothing),leotards=tights.n.01;cctimer,stopwatch;fftinfoil;crtinsel;
fftissue_paper=tissue.n.02;cctoast_(food)=toast.n.01;fftoaster=n.02;fctoaster_oven;fftoilet=n.02;
fftoilet_tissue,toilet_paper,bathroom_tissue;fftomato;fctongs;cctoolbox;fftoothbrush;fftoothpaste;
fctoothpick;fccover=top.n.09;cctortilla;cctow_truck;fftowel;fftowel_rack,towel_rail,towel_bar;
fftoy=n.03;cctractor_(farm_equipment)=tractor.n.01;fftraffic_light;crdirt_bike=trail_bike.n.01;
fctrailer_truck,tractor_trailer,trucking_rig,articulated_lorry,semi_truck;
fftrain_(railroad_vehicle),railroad_train=train.n.01;rrtrampoline;fftray;-rtree_house;
rrtrench_coat;rrtriangle_(musical_instrument)=triangle.n.05;crtricycle;fctripod;
fftrousers,pants_(clothing)=trouser.n.01;fftruck;
rrtruffle_(chocolate),chocolate_truffle=truffle.n.03;cctrunk=n.02;rrvat=tub.n.02;ccturban;
-rturkey_(bird)=turkey.n.01;ccturkey_(food)=turkey.n.04;rrturnip;ccturtle=n.02;
crturtleneck_(clothing),polo-neck=turtleneck.n.01;crtypewriter;ffumbrella;
fcunderwear,underclothes,underclothing,underpants;rrunicycle;fcurinal;crurn;
ccvacuum_cleaner=vacuum.n.04;-cvalve=n.03;ffvase;ccvending_machine;ffvent,blowhole,air_vent;
f-vest,waistcoat;ccvideotape;rrvinegar;rrviolin,fiddle;rrvodka;crvolleyball=n.02;rrvulture;
ccwaffle;rrwaffle_iron;ccwagon;ccwagon_wheel;ccwalking_stick;ccwall_clock;
ffwall_socket,wall_plug,electric_outlet,electrical_outlet,outlet,electric_receptacle;
fcwallet,billfold;rrwalrus;rrwardrobe;r-washbasin,basin_(for_washing),washbowl,washstand,handbasin;
-rwasabi=n.02;ccautomatic_washer,washing_machine=washer.n.03;ffwatch,wristwatch;ffwater_bottle;
ccwater_cooler;ccwater_faucet,water_tap,tap_(water_faucet);-rwater_filter;
rrwater_heater,hot-water_heater;crwater_jug;rrwater_gun,squirt_gun=water_pistol.n.01;
ccwater_scooter,sea_scooter,jet_ski;ccwater_ski;ccwater_tower;ccwatering_can;fcwatermelon=n.02;
ffweathervane,vane_(weathervane),wind_vane;ccwebcam;ccwedding_cake,bridecake;
ccwedding_ring,wedding_band;ffwet_suit;ffwheel;ccwheelchair;ccwhipped_cream;-rwhiskey;
crwhistle=n.03;-rwick=n.02;ccwig;ccwind_chime;ccwindmill;ccwindow_box_(for_plants)=window_box.n.01;
ffwindshield_wiper,windscreen_wiper,wiper_(for_windshield/screen);
ccwindsock,air_sock,air-sleeve,wind_sleeve,wind_cone;ffwine_bottle;crwine_bucket,wine_cooler;
ffwineglass;-rwing_chair;fcblinder_(for_horses)=winker.n.02;ccwok;rrwolf;ccwooden_spoon=n.02;
ccwreath;ccwrench,spanner=n.03;fcwristband;ffwristlet,wrist_band;cryacht;-ryak=n.02;
ccyogurt,yoghurt,yoghourt;cryoke_(animal_equipment)=yoke.n.07;ffzebra;cczucchini,courgette=n.02
"""

# Elsewhere a category's name is its first synonym.
_NAMES = {"bull.n.11": "bull"}


def lvis_categories(column: int) -> list[dict[str, Any]]:
    """The categories of v1 (``column`` 0) or v0.5 (1), by ``id``.

    Returns:
        Dicts of ``id``, ``name``, ``synset``, ``synonyms`` and ``frequency``: ``"f"`` for more
        than 100 training images, ``"c"`` for 11 to 100, ``"r"`` for up to 10.
    """
    categories = []
    for entry in _TABLE.replace("\n", "").split(";"):
        frequency = entry[column]
        if frequency == "-":
            continue
        words, _, synset = entry[2:].partition("=")
        synonyms = words.split(",")
        synset = synset or "n.01"
        if synset.count(".") == 1:
            synset = f"{synonyms[0]}.{synset}"
        name = _NAMES.get(synset, synonyms[0]) if column == 0 else synonyms[0]
        categories.append(
            {
                "id": len(categories) + 1,
                "name": name,
                "synset": synset,
                "synonyms": synonyms,
                "frequency": frequency,
            }
        )
    return categories
